"""What a peer's cores were told, written to a file, so that their decisions can be made again.

A core decides by nothing but its events, their times, its settings and its seed. So a trace that
holds these is enough: ``scripts/simulate --replay FILE`` feeds the same cores and finds either the
same decisions or the first that differs. Each line is one step: the event, and a digest of every
effect it led to.

Holds no payloads: bytes and texts of users (code, values, exceptions, tracebacks, prints) are left
out, in events and before effects are digested; nothing is decided by what they say. It does hold
addresses, names of peers and of transactions, and digests of code.

Several peers may write to one file; each line says whose it is. Lines are kept for a moment and
written together, so a killed peer's last second may be missing. A file never gets larger than
``FILE_BYTES_MAX``: then the trace ends, since one without its beginning could not be replayed. A
file that cannot be written ends the trace, and harms nothing else.
"""

import dataclasses
import logging
import os
import secrets
import threading
import typing
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, structs

from grid import events
from grid.effects import ShowPrinted
from grid.errors import Misuse
from grid.messages import PROTOCOL, Address, Failure, PeerRef, Printed
from grid.settings import Settings

log = logging.getLogger(__name__)

FILE_BYTES_MAX = 256 * 2**20
"""Days of an ordinary member, hours of a busy server."""

BUFFER_BYTES = 64 * 2**10
FLUSH_SECONDS = 1.0

CoreName = Literal["client", "server"]


class Began(Struct, frozen=True, array_like=True, tag="began"):
    """A core was made. What follows ``settings`` only clients have."""

    session: str
    core: CoreName
    protocol: int
    settings: Settings
    me: PeerRef | None = None
    own: tuple[str, ...] = ()
    strict: bool = False
    doors: tuple[Address, ...] = ()
    seed: int = 0


class Step(Struct, frozen=True, array_like=True, tag="step"):
    """A core was told ``event``, of the class ``kind``, and decided ``effects``: of each its class
    and digest. ``failed`` says what the core raised instead."""

    session: str
    core: CoreName
    now: float
    kind: str
    event: msgspec.Raw
    effects: tuple[str, ...]
    failed: str = ""


class Full(Struct, frozen=True, array_like=True, tag="full"):
    """The trace ends here, because its file was large enough. The peer went on."""

    session: str


Line = Began | Step | Full


# ---------------------------------------------------------------------------- leaving payloads out

_TEXTS: dict[type, tuple[str, ...]] = {
    Failure: ("message", "function", "key", "traceback"),
    Printed: ("text",),
    events.OutputPrinted: ("text",),
    ShowPrinted: ("text",),
}
"""Fields with text of users. All fields of bytes are theirs too, whatever has them."""

_HIDDEN = "?"
"""Instead of what is not empty: whether there is something may decide, what it says may not."""


def blank(value: Any) -> Any:
    """The same event, effect or message without payloads."""
    kind = type(value)
    if kind is bytes:
        return _HIDDEN.encode() if value else value
    if kind is tuple:
        return tuple([blank(each) for each in value])
    names = _carriers(kind)
    if not names:
        return value
    hidden = _TEXTS.get(kind, ())
    changes: dict[str, Any] = {}
    for name in names:
        old = getattr(value, name)
        new = (old and _HIDDEN) if name in hidden else blank(old)
        if new is not old:
            changes[name] = new
    if not changes:
        return value
    replace = structs.replace if isinstance(value, Struct) else dataclasses.replace
    return replace(value, **changes)


_known: dict[type, tuple[str, ...]] = {}


def _carriers(kind: type) -> tuple[str, ...]:
    """The fields of a class in which there may be payloads."""
    if kind not in _known:
        _known[kind] = _find_carriers(kind)
    return _known[kind]


def _find_carriers(kind: type) -> tuple[str, ...]:
    if not (dataclasses.is_dataclass(kind) or issubclass(kind, Struct)):
        return ()
    texts = _TEXTS.get(kind, ())
    hints = typing.get_type_hints(kind)
    return tuple(name for name, hint in hints.items() if name in texts or _carries(hint))


def _carries(hint: Any) -> bool:
    parts = typing.get_args(hint)
    if parts:
        return any(_carries(part) for part in parts)
    return hint is bytes or (isinstance(hint, type) and bool(_carriers(hint)))


_encoder = msgspec.json.Encoder(enc_hook=lambda error: f"{type(error).__name__}: {error}")


def digests(effects: list[Any]) -> tuple[str, ...]:
    """Of each effect its class and a digest of all it says, payloads left out."""
    return tuple(
        f"{type(effect).__name__} {zlib.crc32(_encoder.encode(blank(effect))):08x}"
        for effect in effects
    )


# ---------------------------------------------------------------------------------------- writing


class Trace:
    """One peer's file, for all its threads. Raises ``Misuse`` if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._session = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._bytes = 0
        self._flushed_at = 0.0
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._file = os.open(path, flags, 0o600)
        except OSError as error:
            raise Misuse(f"trace={str(path)!r} cannot be written: {error.strerror}") from error
        self._room = FILE_BYTES_MAX - os.fstat(self._file).st_size

    def filenos(self) -> list[int]:
        """For a forked child to close: the trace is its parent's."""
        return [self._file] if self._file >= 0 else []

    def client_began(
        self,
        settings: Settings,
        me: PeerRef,
        seed: int,
        *,
        own: tuple[str, ...],
        strict: bool,
        doors: tuple[Address, ...],
    ) -> None:
        self._add(
            Began(self._session, "client", PROTOCOL, settings, me, own, strict, doors, seed), 0.0
        )

    def server_began(self, settings: Settings) -> None:
        self._add(Began(self._session, "server", PROTOCOL, settings), 0.0)

    def step(self, name: CoreName, core: Any, event: Any, now: float) -> list[Any]:
        """Have a core take a step; write down what it was told and what it decided."""
        told = msgspec.Raw(_encoder.encode(blank(event)))
        kind = type(event).__name__
        try:
            effects: list[Any] = core.step(event, now)
        except Exception as error:
            failed = type(error).__name__
            self._add(Step(self._session, name, now, kind, told, (), failed), now)
            self.flush()
            raise
        self._add(Step(self._session, name, now, kind, told, digests(effects)), now)
        return effects

    def _add(self, line: Line, now: float) -> None:
        if self._file < 0:
            return
        written = _encoder.encode(line) + b"\n"
        with self._lock:
            self._room -= len(written)
            if self._room < 0:
                written = _encoder.encode(Full(self._session)) + b"\n"
            self._lines.append(written)
            self._bytes += len(written)
            if self._room < 0:
                self._stop(f"it has reached {FILE_BYTES_MAX} bytes")
            elif self._bytes > BUFFER_BYTES or now > self._flushed_at + FLUSH_SECONDS:
                self._flushed_at = now
                self._write()

    def flush(self) -> None:
        with self._lock:
            self._write()

    def close(self) -> None:
        """Write what is left. May be repeated."""
        with self._lock:
            self._stop("")

    def _write(self) -> None:
        """Whole lines in one go, so that those of several peers do not mix."""
        data, self._lines, self._bytes = b"".join(self._lines), [], 0
        try:
            while data and self._file >= 0:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            self._stop(f"it cannot be written: {error.strerror}")

    def _stop(self, reason: str) -> None:
        if self._file < 0:
            return
        if self._lines:
            self._write()
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
        if reason:
            log.warning("the trace %s ends here: %s", self._path, reason)


# ---------------------------------------------------------------------------------------- reading

_lines = msgspec.json.Decoder(Line)


def read(path: Path) -> Iterator[tuple[int, Line]]:
    """The lines of a trace, numbered from 1. A last line that was cut short is left out.

    Raises ``Misuse``, saying where, if there is anything else than lines of a trace.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                return
            try:
                yield number, _lines.decode(raw)
            except msgspec.MsgspecError as error:
                raise Misuse(f"{path}, line {number}, is no line of a trace: {error}") from error


def event_of(step: Step) -> Any:
    """The event of a step."""
    return msgspec.json.decode(step.event, type=getattr(events, step.kind))
