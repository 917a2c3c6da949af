"""The word count: every word of many files is a pair, and their counts are added."""

from collections.abc import Iterator

from scripts.benchmark.work import MapReduce, TextFiles
from scripts.benchmark.workloads.texts import TextWorkload


def words(_path: str, text: str) -> Iterator[tuple[str, int]]:
    for word in text.split():
        yield word, 1


def total(_word: str, counts: list[int]) -> int:
    return sum(counts)


class Measured(TextWorkload):
    about = "Count the words of text files, two to the megabyte; 10,000 distinct words a megabyte."

    def over(self, source: TextFiles) -> MapReduce:
        return MapReduce(source, words, total)
