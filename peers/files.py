"""Datasources of files: ``Files``, a value for each file, and ``Lines``, one for each part of it.

Listing records size and mtime. A ``Reference`` carries them to a worker, which reads the file where
it is the same there; where it is missing or differs, ``Changed`` is raised and the peer fetches
the value from an owner. So a shared or copied folder is read in place, and a file that only the
owner has still works.

``Lines`` cuts a file every ``bytes_per_item`` bytes without looking at it. A part has the lines
that start in it, to the end of the last one; so the values of a file, one after the other, are the
file, with nothing twice and nothing lost, however long its lines are. A part in which no line
starts is empty.

A plain name that is no file is an error; a pattern that matches nothing is not, since a folder may
be empty today, but is logged as a warning. Hidden files match only patterns that say the dot.
"""

import codecs
import glob
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grid.errors import GridError, Misuse
from grid.settings import check_names
from grid.suggest import did_you_mean

log = logging.getLogger(__name__)

Mode = Literal["text", "bytes", "path"]
LineKey = tuple[str, int, int]

BYTES_PER_ITEM = 1 << 20
"""A few tens of milliseconds of work for a word count."""


class Changed(GridError):
    """The file is not here, or is not the one that was listed."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A value that is read where it is needed. Small, and pickles.

    ``size`` and ``mtime_ns`` are those of the whole file when it was listed. Without ``stop`` the
    value is the whole file, else the lines that start in ``start..stop``.
    """

    path: str
    size: int
    mtime_ns: int
    mode: Mode = "text"
    encoding: str = "utf-8"
    errors: str = "strict"
    start: int = 0
    stop: int | None = None

    def matches(self) -> bool:
        """Tell whether the file here has the recorded size and mtime."""
        try:
            found = Path(self.path).stat()
        except OSError:
            return False
        return self._is(found)

    def read(self) -> str | bytes:
        """Read the value here. Raises ``Changed`` if the file is not here or not the same, also
        if it changes meanwhile; ``Misuse`` if it is not text in the encoding."""
        if self.mode == "path":
            if not self.matches():
                raise Changed(f"{self.path} is missing here or differs from the owner's")
            return self.path
        try:
            with Path(self.path).open("rb") as file:
                self._check(os.fstat(file.fileno()))
                data = file.read() if self.stop is None else self._lines(file)
                self._check(os.fstat(file.fileno()))
        except OSError as error:
            raise Changed(f"{self.path} cannot be read here: {error}") from error
        return data if self.mode == "bytes" else self._decoded(data)

    def _is(self, found: os.stat_result) -> bool:
        return found.st_size == self.size and found.st_mtime_ns == self.mtime_ns

    def _check(self, found: os.stat_result) -> None:
        if not self._is(found):
            sizes = f"{found.st_size} bytes now, {self.size} then"
            what = "it was written again" if found.st_size == self.size else sizes
            raise Changed(f"{self.path} has changed since it was listed: {what}")

    def _lines(self, file: Any) -> bytes:
        assert self.stop is not None
        # The byte before the part tells whether a line starts right at its start.
        begin = max(0, self.start - 1)
        file.seek(begin)
        data: bytes = file.read(self.stop - begin)
        if self.start:
            end_of_line = data.find(b"\n")
            if end_of_line < 0:
                return b""
            data = data[end_of_line + 1 :]
        if data and not data.endswith(b"\n"):
            data += file.readline()
        return data

    def _decoded(self, data: bytes) -> str:
        try:
            text = data.decode(self.encoding, self.errors)
        except UnicodeDecodeError as error:
            at = f"after byte {self.start} " if self.start else ""
            raise Misuse(
                f"{self.path} is not {self.encoding} text {at}({error}); give its encoding=, or "
                f"errors='replace', or mode='bytes'"
            ) from error
        if self.stop is None and "\r" in text:
            # As open(path).read() does. Parts keep their bytes: a cut must not change them.
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        return text


class _Listed:
    """Files that match patterns, with what was recorded of them at the last listing."""

    def __init__(self, patterns: tuple[str | os.PathLike[str], ...], mode: str) -> None:
        modes = self._modes()
        if mode not in modes:
            hint = did_you_mean(mode, modes)
            raise Misuse(f"mode={mode!r} is not one of {', '.join(modes)}{hint}")
        if not patterns:
            raise Misuse(f"{type(self).__name__} needs a file name or pattern, as in '*.txt'")
        # Not resolved: a link is known by its own name.
        self.patterns = tuple(os.path.abspath(Path(one).expanduser()) for one in patterns)  # noqa: PTH100
        self.mode: Any = mode
        self._found: dict[str, tuple[int, int]] | None = None

    def _modes(self) -> tuple[str, ...]:
        return ("text", "bytes")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.patterns))})"

    def _list(self) -> dict[str, tuple[int, int]]:
        """List anew: path -> (size, mtime_ns), sorted by path."""
        paths: set[str] = set()
        for pattern in self.patterns:
            paths.update(_matches(pattern))
        found = {path: recorded for path in sorted(paths) if (recorded := _stat(path))}
        self._found = found
        return found

    def _recorded(self, path: Any, key: Any) -> tuple[int, int]:
        found = self._found if self._found is not None else self._list()
        try:
            return found[path]
        except (KeyError, TypeError):
            raise KeyError(f"{key!r} is not among the files of {self!r}") from None

    def _read(self, reference: Reference) -> str | bytes:
        try:
            return reference.read()
        except Changed as error:
            if isinstance(error.__cause__, PermissionError):
                raise Misuse(f"{error}; change its permissions") from error
            raise Misuse(
                f"{error}; files must stay as they are while a job runs, so submit it again or "
                f"copy them first"
            ) from error


def _matches(pattern: str) -> list[str]:
    plain = Path(pattern)
    if plain.is_file():  # also a name with [ or * in it
        return [pattern]
    if not glob.has_magic(pattern):
        if plain.is_dir():
            raise Misuse(f"{pattern} is a folder; write a pattern, as in {pattern}/**/*.txt")
        raise Misuse(f"{pattern} is not a file here; correct its name, or write a pattern")
    # Path.glob would match hidden files too.
    matches = [path for path in glob.iglob(pattern, recursive=True) if Path(path).is_file()]  # noqa: PTH207
    if not matches:
        log.warning("no file matches pattern=%s", pattern)
    return matches


def _stat(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None  # gone between matching and now, which is as good as never there
    return found.st_size, found.st_mtime_ns


def _check_codec(encoding: str, errors: str) -> None:
    try:
        codecs.lookup(encoding)
    except LookupError:
        hint = did_you_mean(encoding, ("utf-8", "latin-1", "ascii", "cp1252", "utf-8-sig"))
        raise Misuse(f"encoding={encoding!r} is not known{hint}") from None
    try:
        codecs.lookup_error(errors)
    except LookupError:
        hint = did_you_mean(errors, ("strict", "ignore", "replace", "surrogateescape"))
        raise Misuse(f"errors={errors!r} is not known{hint}") from None


class Files(_Listed):
    """The files that match ``globs``; keys are their absolute paths, sorted.

    ``**`` matches any folders. Relative patterns start at the working directory of the moment.
    With ``mode="text"`` a value is what ``open(path, encoding=..., errors=...).read()`` gives,
    with ``"bytes"`` its bytes, with ``"path"`` the path itself, for file systems that all share.
    Raises ``Misuse`` for a plain name that is no file, an unknown mode or encoding.
    """

    def __init__(
        self,
        *globs: str | os.PathLike[str],
        encoding: str = "utf-8",
        errors: str = "strict",
        mode: Mode = "text",
        **unknown: Any,
    ) -> None:
        check_names(unknown, ["encoding", "errors", "mode"], "Files")
        super().__init__(globs, mode)
        _check_codec(encoding, errors)
        self.encoding = encoding
        self.errors = errors

    def _modes(self) -> tuple[str, ...]:
        return ("text", "bytes", "path")

    def __iter__(self) -> Iterator[str]:
        """List the files anew, recording size and mtime of each."""
        return iter(list(self._list()))

    def __getitem__(self, key: str) -> str | bytes:
        """Read the value here. Raises ``KeyError`` if not listed, ``Misuse`` if not as listed."""
        return self._read(self.reference(key))

    def reference(self, key: str) -> Reference:
        """Return what a worker needs to read the value, if it has the file. Raises ``KeyError``."""
        size, mtime_ns = self._recorded(key, key)
        return Reference(key, size, mtime_ns, self.mode, self.encoding, self.errors)


class Lines(_Listed):
    """Parts of the files that match ``globs``, cut on line ends; keys are (path, start, stop).

    A value is the lines that start in ``start..stop``, about ``bytes_per_item`` bytes, with their
    line ends as they are (``\\n`` ends a line, and so does ``\\r\\n``); with ``mode="bytes"`` not
    decoded. The encoding must write a line end as one byte, as utf-8 and latin-1 do. Empty files
    have no items. Raises ``Misuse`` as ``Files`` does.
    """

    def __init__(
        self,
        *globs: str | os.PathLike[str],
        bytes_per_item: int = BYTES_PER_ITEM,
        encoding: str = "utf-8",
        errors: str = "strict",
        mode: Literal["text", "bytes"] = "text",
        **unknown: Any,
    ) -> None:
        check_names(unknown, ["bytes_per_item", "encoding", "errors", "mode"], "Lines")
        super().__init__(globs, mode)
        _check_codec(encoding, errors)
        if type(bytes_per_item) is not int or bytes_per_item < 1:
            raise Misuse(f"bytes_per_item={bytes_per_item!r} is not a whole number above 0")
        if mode == "text" and not _cuts_at_line_ends(encoding):
            raise Misuse(
                f"Lines cannot cut {encoding} on line ends, which are more than the one byte; use "
                f"Files(..., encoding={encoding!r}), or convert to utf-8"
            )
        self.bytes_per_item = bytes_per_item
        self.encoding = encoding
        self.errors = errors

    def __iter__(self) -> Iterator[LineKey]:
        """List the files anew and cut them, without reading them."""
        step = self.bytes_per_item
        for path, (size, _) in self._list().items():
            for start in range(0, size, step):
                yield path, start, min(start + step, size)

    def __getitem__(self, key: LineKey) -> str | bytes:
        """Read the value here. Raises ``KeyError`` if not listed, ``Misuse`` if not as listed."""
        return self._read(self.reference(key))

    def reference(self, key: LineKey) -> Reference:
        """Return what a worker needs to read the value, if it has the file. Raises ``KeyError``."""
        try:
            path, start, stop = key
        except (TypeError, ValueError):
            raise KeyError(f"{key!r} is not a (path, start, stop) of {self!r}") from None
        size, mtime_ns = self._recorded(path, key)
        return Reference(path, size, mtime_ns, self.mode, self.encoding, self.errors, start, stop)


def _cuts_at_line_ends(encoding: str) -> bool:
    name = codecs.lookup(encoding).name
    # The mark of utf-8-sig is taken off at the start of the file, where alone it stands.
    return name == "utf-8-sig" or "a\nb".encode(name) == b"a\nb"
