"""The same script in several terminals: one shared job over real text. Kill any of them.

    python examples/masterless.py            # the text is Python's own standard library
    python examples/masterless.py 'books/**/*.txt'

Every copy is a peer like the others: one of them serves, all of them work, and all of them own the
one transaction named "masterless". Kill the one that serves (its process id is shown): another
takes over and the count goes on. Every copy that lives prints the same result. One that is started
late, while another is still there, takes part or gets the finished result at once: --stay keeps a
copy there after its result, until Ctrl-C.
"""

import argparse
import hashlib
import os
import re
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

from peers import Files, GridError, Job, Peer, Transaction

WORD = re.compile(r"[A-Za-z]{2,}")
SHOW_SECONDS = 0.5


def count_words(_path: str, text: str) -> Iterator[tuple[str, int]]:
    for word in WORD.findall(text):
        yield word.lower(), 1


def total(_word: str, counts: list[int]) -> int:
    return sum(counts)


def library_files() -> list[str]:
    """The source files of this interpreter's own standard library."""
    top = Path(sysconfig.get_paths()["stdlib"])
    found = (path for path in top.rglob("*.py") if "site-packages" not in path.parts)
    return sorted(map(str, found))


def watch(peer: Peer, transaction: Transaction) -> None:
    """Say who serves, and how far the job is, until it is done."""
    done = threading.Event()
    transaction.add_done_callback(lambda _: done.set())
    shown = ""
    while not done.wait(SHOW_SECONDS):
        shown = say_who_serves(peer, shown)
        now = transaction.progress
        print(
            f"  map {now.maps_done}/{now.maps_total}, reduce {now.reduces_done}/{now.reduces_total}"
            f", {len(now.peers)} peers at work",
            flush=True,
        )
    say_who_serves(peer, shown)


def say_who_serves(peer: Peer, before: str) -> str:
    """Print who serves, if that has changed. Return it."""
    who = "this process" if peer.serving else peer.server
    told = f"{who} serves, term {peer.term}" if who else "no server: another takes over"
    if told != before:
        print(told, flush=True)
    return told


def show(transaction: Transaction) -> None:
    results = transaction.result()
    common = sorted(results.items(), key=lambda pair: (-pair[1], pair[0]))
    digest = hashlib.sha256(repr(sorted(results.items())).encode()).hexdigest()[:16]
    print("most common: " + ", ".join(f"{word} {count}" for word, count in common[:8]))
    print(
        f"{sum(results.values())} words, {len(results)} different; result {digest}; "
        f"{transaction.progress.executed_again} finished tasks executed again",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("glob", nargs="*", help="text files (the standard library)")
    parser.add_argument("--stay", action="store_true", help="stay after the result, until Ctrl-C")
    args = parser.parse_args()
    files = Files(*(args.glob or library_files()), errors="replace")
    job = Job(files, count_words, reducefn=total)
    with Peer() as peer:
        print(f"{peer.name} is process {os.getpid()}: kill -9 {os.getpid()}", flush=True)
        transaction = peer.submit(job, name="masterless")
        watch(peer, transaction)
        show(transaction)
        if args.stay:
            peer.wait_until_down()


if __name__ == "__main__":
    try:
        main()
    except GridError as error:
        sys.exit(f"masterless.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
