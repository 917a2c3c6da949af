"""The engines by name. A module is imported when its engine is used, a rival when it starts."""

from importlib import import_module

from scripts.benchmark.engines.base import Engine

NAMES = ("grid", "pool", "futures", "loky", "mpire", "dask", "ray", "spark", "alone", "before")
"""In the order of the tables. Each is a module here, with a class ``Measured``."""

ALL = NAMES[:-1]
"""Each in its present state."""

USUAL = ("grid", "pool", "futures")
"""What needs no installing of others."""


def load(name: str) -> type[Engine]:
    """Return the engine's class."""
    measured: type[Engine] = import_module(f"{__name__}.{name}").Measured
    return measured
