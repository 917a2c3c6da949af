"""How gunicorn runs the application: ``gunicorn app:application`` in this folder reads it.

Nothing in it is needed for the grid but the drain at the end, which spares others the work of a
worker that goes. ``preload_app`` may be on or off.
"""

from typing import Any

bind = "127.0.0.1:8000"
workers = 3
worker_class = "gthread"  # a request that waits for its result holds a thread, not a worker
threads = 8
timeout = 30
graceful_timeout = 30  # requests that run get so long, when workers are stopped or reloaded

DRAIN_SECONDS = 10.0  # of `timeout`, after which gunicorn would kill the worker


def worker_exit(_server: Any, _worker: Any) -> None:
    """The last request is answered: end what this peer runs for others, and pass it on."""
    from app import peer

    peer.drain(DRAIN_SECONDS)
