"""Benchmarks: the same work, done by this grid and by its rivals, side by side in one run.

``scripts/bench`` is the command; ``__main__`` reads its arguments. A *workload* (``workloads/``) is
what is done, an *engine* (``engines/``) does it, a *run* is one whole process that does one
workload with one engine (``child``). ``runs`` starts them in turns, A B A B, in an environment of
the engine's own (``environments``), looks at processes and memory (``processes``, ``memory``), and
``report`` makes tables of what ``results`` has kept. Everything that is made lies in ``.bench``.

To add an engine: a module in ``engines/`` with a class derived from ``Engine``, and its name in
``engines.NAMES``. To add a workload: the same in ``workloads/``.
"""
