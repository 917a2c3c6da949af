"""The word count: every word of many files is a pair, and their counts are added."""

from collections.abc import Iterator
from pathlib import Path

from scripts.benchmark.work import MapReduce, TextFiles
from scripts.benchmark.workloads import texts
from scripts.benchmark.workloads.base import Input, MapReduceWorkload


def words(_path: str, text: str) -> Iterator[tuple[str, int]]:
    for word in text.split():
        yield word, 1


def total(_word: str, counts: list[int]) -> int:
    return sum(counts)


class Measured(MapReduceWorkload):
    about = "Count the words of text files, two to the megabyte; 10,000 distinct words a megabyte."
    input = "texts"
    unit = "MB of text"
    full = 200
    quick = 20
    least = 1

    def prepare(self, folder: Path, size: int) -> None:
        texts.write(folder, size)

    def work(self, given: Input) -> MapReduce:
        return MapReduce(TextFiles(str(given.folder)), words, total)
