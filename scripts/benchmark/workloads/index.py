"""The inverted index: for every word the sorted names of the files that have it."""

from collections.abc import Iterator

from scripts.benchmark.work import MapReduce, TextFiles
from scripts.benchmark.workloads.texts import TextWorkload


def places(path: str, text: str) -> Iterator[tuple[str, str]]:
    name = path.rpartition("/")[2]
    for word in dict.fromkeys(text.split()):
        yield word, name


def in_order(_word: str, names: list[str]) -> list[str]:
    return sorted(names)


class Measured(TextWorkload):
    about = "An inverted index of the files of the word count: word to sorted file names."

    def over(self, source: TextFiles) -> MapReduce:
        return MapReduce(source, places, in_order)
