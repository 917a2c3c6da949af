"""Long-lived peers to which jobs arrive: every text file put into a folder has its words counted.

    python examples/daemon.py            # the folder `inbox` here, in several terminals
    cp README.md inbox/readme.txt        # a job arrives

Every copy of this script watches the same folder and submits what it finds there, under a name
made of the file's name and time. The same name and job is one transaction with several owners: each
file is counted once, by all of them together, and whichever of them are killed meanwhile, one that
lives writes the counts beside the file, as NAME.txt.counts. A copy that starts later does what the
others had not finished. Ctrl-C (or `grid down`) ends one (or all) of them.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from peers import GridError, Job, Lines, Peer, Transaction

LOOK_SECONDS = 0.5


def count_words(_part: object, text: str) -> Iterator[tuple[str, int]]:
    for word in text.split():
        yield word.lower(), 1


def total(_word: str, counts: list[int]) -> int:
    return sum(counts)


def arrivals(inbox: Path, seen: dict[str, None]) -> Iterator[tuple[str, Path]]:
    """The files without counts that were not seen before, each with the name of its job."""
    for path in sorted(inbox.glob("*.txt")):
        try:
            name = f"{path.name} of {path.stat().st_mtime_ns}"
        except FileNotFoundError:
            continue  # gone again
        if name not in seen and not counts_of(path).exists():
            seen[name] = None
            yield name, path


def counts_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.counts")


def finish(transaction: Transaction, path: Path) -> None:
    """Write a result where all copies agree to find it: the same bytes, whoever is last."""
    error = transaction.exception()
    if error is not None:
        print(f"{path.name}: {error}", file=sys.stderr, flush=True)
        return
    results = transaction.result()
    lines = [f"{count}\t{word}\n" for word, count in sorted(results.items())]
    written = path.with_name(f".{path.name}.{os.getpid()}")
    written.write_text("".join(lines), encoding="utf-8")
    written.replace(counts_of(path))
    print(f"{path.name}: {sum(results.values())} words, {len(results)} different", flush=True)


def take(peer: Peer, name: str, path: Path) -> None:
    job = Job(Lines(path, errors="replace"), count_words, combinefn=total, reducefn=total)
    transaction = peer.submit(job, name=name)
    transaction.add_done_callback(lambda _: None if _.cancelled() else finish(transaction, path))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inbox", nargs="?", type=Path, default=Path("inbox"), help="(inbox)")
    inbox: Path = parser.parse_args().inbox
    inbox.mkdir(exist_ok=True)
    seen: dict[str, None] = {}
    with Peer() as peer:
        print(f"{peer.name} is process {os.getpid()} and watches {inbox}", flush=True)
        while not peer.wait_until_down(LOOK_SECONDS):
            for name, path in arrivals(inbox, seen):
                print(f"{path.name}: arrived", flush=True)
                take(peer, name, path)


if __name__ == "__main__":
    try:
        main()
    except (GridError, OSError) as error:
        sys.exit(f"daemon.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
