"""Coverage-guided fuzzing of everything that takes bytes from other peers: ``scripts/fuzz``.

Each target (``targets.py``) is a function of bytes: what a socket, a file or a channel delivered.
It raises only if a promise is broken. Its seeds are real encoded messages and segments; its
mutator changes messages and headers by their types, so that most inputs get past the decoders.
``engine.py`` runs one target under atheris; ``test_targets.py`` runs all of them over their seeds
and some mutations of these, without atheris, in every ``scripts/test``.
"""
