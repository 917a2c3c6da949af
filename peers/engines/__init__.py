"""The same ``Job`` on other engines: one tiny interface, and a small module for each engine.

``peers.run(job, on=...)`` is the door (``choice.py``); ``docs/outgrowing.md`` says when to use it.
"""
