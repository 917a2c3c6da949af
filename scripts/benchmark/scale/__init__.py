"""How the grid grows: with slots, tasks, peers and data. ``scripts/bench scale``.

``parts`` has the measurements, each of which returns a ``Part``: rows of numbers, which ``keep``
writes down, the report shows as a table, and ``pictures`` draws. They use a grid of their own on
this host, whose server is a process of its own (``site``, ``peer``), so that what it computes,
keeps in memory and sends is known.
"""
