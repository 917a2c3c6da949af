"""Count the words of four lines. The smallest job: read this one first.

    python examples/humpty.py

Run it alone and it is a whole grid: it serves, works and prints the counts. Run it in several
terminals at once and they are one grid that counts once: the job has a name, so all of them own
the same transaction and print the same result.
"""

import sys
from collections.abc import Iterator

from peers import GridError, Job, Peer

LINES = [
    "Humpty Dumpty sat on a wall",
    "Humpty Dumpty had a great fall",
    "All the King's horses and all the King's men",
    "Couldn't put Humpty together again",
]


def words(_number: int, line: str) -> Iterator[tuple[str, int]]:
    for word in line.split():
        yield word.lower(), 1


def total(_word: str, counts: list[int]) -> int:
    return sum(counts)


def main() -> None:
    job = Job(LINES, words, reducefn=total)
    with Peer() as peer:
        results = peer.submit(job, name="humpty").result()
    for word, count in sorted(results.items()):
        print(f"{count} {word}")


if __name__ == "__main__":
    try:
        main()
    except GridError as error:
        sys.exit(f"humpty.py: {error}")
