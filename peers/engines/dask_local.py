"""``python -m peers.engines.dask_local [WORKERS]``: a Dask cluster of this host.

Dask's worker processes import the script that started them, so a script that starts them needs a
``__main__`` guard. Started from here they import this module instead. It writes the scheduler's
address as one line, and ends with all its workers when its standard input does, so also when the
process that wanted it dies.
"""

import os
import sys

from distributed import LocalCluster


def main() -> None:
    """Serve until nobody wants it any more."""
    workers = int(sys.argv[1]) if sys.argv[1:] else len(os.sched_getaffinity(0))
    # With any port for its pages, since Dask warns where its usual one is taken.
    with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as cluster:
        sys.stdout.write(f"{cluster.scheduler_address}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
