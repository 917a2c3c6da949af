"""What a user says about a peer, in arguments and ``GRID_*`` variables, made into settings.

An argument wins over its variable, a variable over the default. The same everywhere: ``Peer``
and the ``grid`` command read them here.
"""

import itertools
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from grid.errors import Misuse
from grid.messages import Address
from grid.settings import NAME_MAX, PORT, Settings, check_name, check_names
from peers.addresses import is_loopback

WorkerMode = Literal["process", "thread"]

_numbers = itertools.count(1)

_SETTINGS = [f.name for f in fields(Settings) if f.name not in ("hosts",)]

_VARIABLES: dict[str, type] = {
    "hosts": str,
    "port": int,
    "port_span": int,
    "grid": str,
    "slots": int,
    "name": str,
    "workers": str,
    "spool": str,
    "key_file": str,
    "silence_seconds": float,
    "heartbeat_seconds": float,
    "join_timeout": float,
}
"""What ``GRID_<NAME>`` may set. ``GRID_PASSWORD`` is read where keys are, and nowhere else."""


@dataclass(frozen=True)
class Configuration:
    """One peer's settings and what else it was told. ``hosts`` empty: a grid on this host alone."""

    settings: Settings
    hosts: tuple[str, ...]
    name: str
    workers: WorkerMode
    spool: Path | None
    key_file: str | None
    password: str | bytes | None

    @property
    def loopback_only(self) -> bool:
        """Whether no other host can ever reach this grid."""
        return all(is_loopback(host) for host in self.hosts)

    def candidates(self) -> tuple[Address, ...]:
        """Where a server may be, in order: every port of the first choice before the next."""
        hosts = self.hosts or ("127.0.0.1",)
        return tuple(Address(host, port) for port in self.settings.ports for host in hosts)

    def __repr__(self) -> str:
        return f"<Configuration {self.name} grid={self.settings.grid} port={self.settings.port}>"


def configure(given: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Configuration:
    """Check what was given and fill in the rest. Raises ``Misuse``."""
    known = [*_SETTINGS, *_VARIABLES, "password"]
    check_names(dict(given), known, "Peer")
    values = {name: value for name, value in given.items() if value is not None}
    for name, kind in _VARIABLES.items():
        text = environ.get(f"GRID_{name.upper()}")
        if name not in values and text:
            values[name] = _read(name, kind, text)
    hosts = _hosts(values.pop("hosts", ()))
    workers = values.pop("workers", "process")
    if workers not in ("process", "thread"):
        raise Misuse(f"workers={workers!r} is neither 'process' nor 'thread'")
    name = values.pop("name", "") or _default_name()
    check_name(name, "name")
    spool = values.pop("spool", None)
    key_file = values.pop("key_file", None)
    password = values.pop("password", None)
    values.setdefault("slots", os.cpu_count() or 1)
    values.setdefault("port", PORT)
    try:
        settings = Settings(hosts=hosts, **values)
    except TypeError as error:
        raise Misuse(f"a setting has a value of the wrong type: {error}") from error
    return Configuration(
        settings=settings,
        hosts=hosts,
        name=name,
        workers=workers,
        spool=Path(spool) if spool else None,
        key_file=str(key_file) if key_file else None,
        password=password,
    )


def _default_name() -> str:
    """The host and process; further peers of one process are numbered."""
    number = next(_numbers)
    return f"{socket.gethostname()}-{os.getpid()}" + (f".{number}" if number > 1 else "")


def _read(name: str, kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise Misuse(f"GRID_{name.upper()}={text!r} is not a {kind.__name__}") from None


def _hosts(hosts: str | Iterable[str]) -> tuple[str, ...]:
    """Take ``"a,b"`` or a list of names; duplicates count once."""
    names = hosts.split(",") if isinstance(hosts, str) else list(hosts)
    for name in names:
        if not isinstance(name, str):
            raise Misuse(f"hosts must be names or addresses, not {name!r}")
        if len(name) > NAME_MAX or not name.strip().isprintable():
            raise Misuse(f"hosts has {name[:80]!r}, which is no name or address of a host")
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
