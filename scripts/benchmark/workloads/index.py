"""The inverted index: for every word the sorted names of the files that have it."""

from collections.abc import Iterator
from pathlib import Path

from scripts.benchmark.work import MapReduce, TextFiles
from scripts.benchmark.workloads import texts
from scripts.benchmark.workloads.base import Input, MapReduceWorkload


def places(path: str, text: str) -> Iterator[tuple[str, str]]:
    name = path.rpartition("/")[2]
    for word in dict.fromkeys(text.split()):
        yield word, name


def in_order(_word: str, names: list[str]) -> list[str]:
    return sorted(names)


class Measured(MapReduceWorkload):
    about = "An inverted index of the files of the word count: word to sorted file names."
    input = "texts"
    unit = "MB of text"
    full = 200
    quick = 20
    least = 1

    def prepare(self, folder: Path, size: int) -> None:
        texts.write(folder, size)

    def work(self, given: Input) -> MapReduce:
        return MapReduce(TextFiles(str(given.folder)), places, in_order)
