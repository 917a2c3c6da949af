"""Writing results: lines for people and pipes, JSON for scripts, pickle for Python.

Lines and JSON are streamed, a pickle is one dict. JSON is a list of ``[key, value]`` pairs, since
keys may be of any type and have an order; what JSON cannot write is written as Python shows it, so
that nothing computed is lost to its form. A file appears whole or not at all.
"""

import argparse
import json
import os
import pickle
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import islice
from pathlib import Path
from typing import IO, Any

from grid.errors import Misuse
from peers.cli.waiting import spinning

Pairs = Iterable[tuple[Any, Any]]

SUFFIXES = (".json", ".pickle", ".pkl", ".txt")


LINES_ON_TERMINAL = 50
"""More would push what was said before off the screen."""


def add_json_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--json``; ``what`` it prints, for people."""
    parser.add_argument("--json", action="store_true", help=f"{what}, for scripts")


@contextmanager
def stdout_for_results() -> Iterator[IO[str]]:
    """Give stdout for results alone. What else is printed meanwhile, by user code here or on
    workers, goes to stderr, whenever it comes."""
    results = sys.stdout
    with redirect_stdout(sys.stderr):
        yield results


def print_json(value: Any, file: IO[str] | None = None) -> None:
    """Print one value, as plain as JSON, over several lines."""
    print(json.dumps(value, indent=2), file=file)


def print_json_line(value: Any, file: IO[str] | None = None) -> None:
    """Print one value on one line, at once: for those who read along."""
    print(json.dumps(value), file=file, flush=True)


def print_skipped(skipped: list[Any]) -> None:
    """Say on stderr which items ``--on-error skip`` has left out, if any."""
    if skipped:
        keys = ", ".join(map(repr, skipped[:10]))
        more = ", ..." if len(skipped) > 10 else ""
        print(f"left out because a function raised: {len(skipped)} ({keys}{more})", file=sys.stderr)


def add_result_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how results are written."""
    results = parser.add_argument_group("results")
    results.add_argument(
        "--output", type=Path, metavar="FILE", help="write to FILE, a .json, .pickle or .txt"
    )
    results.add_argument("--json", action="store_true", help="print JSON: [key, value] pairs")
    results.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help=f"print at most N lines ({LINES_ON_TERMINAL} on a terminal, else all)",
    )


def check_result_options(args: argparse.Namespace) -> None:
    """Raise ``Misuse`` for what cannot be done, before anything is computed."""
    if args.output is not None:
        check_output(args.output)
    if args.limit is not None and args.limit < 0:
        raise Misuse(f"--limit {args.limit}: give a number of lines, 0 or more")


def print_results(pairs: Pairs, args: argparse.Namespace, out: IO[str]) -> None:
    """Write results as the flags say, to ``out`` if not to a file."""
    if args.output is not None:
        with spinning(f"writing {args.output}"):
            count = write_file(args.output, pairs)
        print(f"{count} results in {args.output}", file=sys.stderr)
        return
    if args.json:
        write_json(out, pairs)
        return
    limit = args.limit
    if limit is None and out.isatty():
        limit = LINES_ON_TERMINAL
    count = write_lines(out, pairs, limit)
    if limit is not None and count > limit:
        print(f"... and {count - limit} more (--limit N, --output FILE)", file=sys.stderr)


def check_output(path: Path) -> None:
    """Raise ``Misuse`` if results could not be written to ``path``, before they are computed."""
    if path.suffix not in SUFFIXES:
        raise Misuse(
            f"--output {path}: the name should end in {', '.join(SUFFIXES)}, which says how to "
            f"write"
        )
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise Misuse(f"--output {path}: {path.parent.absolute()} is not a folder to write in")
    if path.is_dir():
        raise Misuse(f"--output {path} is a folder; give the name of a file")


def write_file(path: Path, pairs: Pairs) -> int:
    """Write results in the form that the name asks for. Return how many."""
    if path.suffix in (".pickle", ".pkl"):
        with _whole(path, "wb") as file:
            results = dict(pairs)
            pickle.dump(results, file, protocol=pickle.HIGHEST_PROTOCOL)
            return len(results)
    with _whole(path, "w") as file:
        return (write_json if path.suffix == ".json" else write_lines)(file, pairs)


def write_lines(file: IO[str], pairs: Pairs, limit: int | None = None) -> int:
    """Write ``key TAB value`` lines, at most ``limit``. Return how many results there are."""
    rest = iter(pairs)
    count = 0
    for key, value in islice(rest, limit):
        file.write(f"{shown(key)}\t{shown(value)}\n")
        count += 1
    return count + sum(1 for _ in rest)


def write_json(file: IO[str], pairs: Pairs) -> int:
    """Write a list of ``[key, value]`` pairs, one a line. Return how many."""
    count = 0
    for count, (key, value) in enumerate(pairs, 1):
        file.write(",\n" if count > 1 else "[\n")
        json.dump([plain(key), plain(value)], file)
    file.write("\n]\n" if count else "[]\n")
    return count


def shown(value: Any) -> str:
    """Text as it is where it stays on its line and in its column, all else as Python shows it."""
    return value if isinstance(value, str) and value.isprintable() else repr(value)


def plain(value: Any) -> Any:
    """Return what JSON can write of a value."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: plain(inner) for key, inner in value.items()}
        return [[plain(key), plain(inner)] for key, inner in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    return repr(value)


@contextmanager
def _whole(path: Path, mode: str) -> Iterator[IO[Any]]:
    """Open a file that gets its name when it is complete."""
    encoding = None if "b" in mode else "utf-8"
    fd, written = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(fd, mode, encoding=encoding) as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        Path(written).chmod(0o666 & ~umask)
        Path(written).replace(path)
    except BaseException:
        Path(written).unlink(missing_ok=True)
        raise
