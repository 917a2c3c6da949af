"""``python -m peers.mincemeat``: a worker, as ``peers.mincemeat.command`` describes it."""

from peers.mincemeat.command import run_client

run_client()
