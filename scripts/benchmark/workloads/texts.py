"""Text made from a size: files of half a megabyte, with 10,000 distinct words for each megabyte.

Words are drawn as in prose, the n-th most frequent one n times rarer than the first; and so that
none is missing, each file also has its share of the whole vocabulary. 200 MB have 2 million
distinct words in 400 files, like source text; prose has far fewer.

``TextWorkload`` is a job over such files, so that several share one input.
"""

import random
from abc import abstractmethod
from itertools import islice
from pathlib import Path

from scripts.benchmark.work import MapReduce, TextFiles
from scripts.benchmark.workloads.base import Input, MapReduceWorkload

SEED = 11235
WORDS_PER_MB = 10_000
FILES_PER_MB = 2
LINE_WORDS = 12

_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


def word(number: int) -> str:
    """A word of its own for every number, and short for small ones."""
    text = ""
    while True:
        number, syllable = divmod(number, len(_SYLLABLES))
        text += _SYLLABLES[syllable]
        if not number:
            return text
        number -= 1


def write(folder: Path, megabytes: int) -> None:
    """Fill the folder."""
    source = random.Random(SEED)
    count = megabytes * WORDS_PER_MB
    vocabulary = [word(number) for number in range(count)]
    files = megabytes * FILES_PER_MB
    rare = vocabulary[:]
    source.shuffle(rare)
    share = count // files
    for number in range(files):
        own = rare[number * share : (number + 1) * share]
        path = folder / f"{number:05}.txt"
        path.write_text(_text(source, vocabulary, own), encoding="utf-8")


def _text(source: random.Random, vocabulary: list[str], own: list[str]) -> str:
    size = 1_000_000 // FILES_PER_MB
    words = own[:]
    length = sum(map(len, words)) + len(words)
    count, draw = len(vocabulary), source.random
    while length < size:
        # A power of a uniform number: each word's share falls with its rank.
        more = [vocabulary[int(count ** draw()) - 1] for _ in range(2_000)]
        length += sum(map(len, more)) + len(more)
        words += more
    source.shuffle(words)
    left = iter(words)
    lines = iter(lambda: " ".join(islice(left, LINE_WORDS)), "")
    return "\n".join(lines) + "\n"


class TextWorkload(MapReduceWorkload):
    """A job whose items are the texts of these files."""

    input = "texts"
    unit = "MB of text"
    full = 200
    quick = 20
    least = 1

    def prepare(self, folder: Path, size: int) -> None:
        write(folder, size)

    def work(self, given: Input) -> MapReduce:
        return self.over(TextFiles(str(given.folder)))

    @abstractmethod
    def over(self, source: TextFiles) -> MapReduce:
        """The job over these files."""
