"""The workloads by name. A module is imported when its workload is used."""

from importlib import import_module

from scripts.benchmark.workloads.base import Workload

NAMES = (
    "wordcount",
    "index",
    "group",
    "sort",
    "tiny",
    "latency",
    "cold",
    "skew",
    "numeric",
    "pipeline",
    "failover",
)
"""In the order of the report. Each is a module here, with a class ``Measured``."""


def load(name: str) -> Workload:
    """Return the workload."""
    workload: Workload = import_module(f"{__name__}.{name}").Measured()
    return workload
