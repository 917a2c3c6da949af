"""One job, several engines: words of the standard library's sources, counted by each that is named.

    python examples/anywhere.py                      # here, and on a grid
    python examples/anywhere.py local grid dask ray dask://head:8786

Each line shows how long it took with all that had to be started for it (a grid, a cluster), how
that compares with the first, and whether the answer is the same. docs/outgrowing.md explains.
"""

import sys
import sysconfig
import time
from collections.abc import Iterator

from peers import Files, Job, run

ENGINES = sys.argv[1:] or ["local", "grid"]


def words(_path: str, text: str) -> Iterator[tuple[str, int]]:
    for word in text.split():
        yield word, 1


def total(_word: str, counts: list[int]) -> int:
    return sum(counts)


sources = Files(f"{sysconfig.get_path('stdlib')}/[a-z]*/*.py", errors="replace")
job = Job(sources, words, reducefn=total)

first: dict[str, int] = {}
baseline = 0.0
for engine in ENGINES:
    began = time.perf_counter()
    results = run(job, on=engine)
    seconds = time.perf_counter() - began
    first, baseline = first or results, baseline or seconds
    same = "same" if list(results.items()) == list(first.items()) else "DIFFERENT"
    counted = f"{sum(results.values())} words, {len(results)} different"
    print(f"{engine}: {seconds:.2f} s, {seconds / baseline:.2f} of {ENGINES[0]}; {counted}: {same}")
