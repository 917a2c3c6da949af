"""What a user says about a peer, in arguments and ``GRID_*`` variables, made into settings.

An argument wins over its variable, a variable over the default. The same everywhere: ``Peer``
and the ``grid`` command read them here.
"""

import itertools
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from grid.errors import Misuse
from grid.messages import Address
from grid.settings import PORT, Settings, check_name, check_names
from peers.addresses import Place, is_loopback, is_wildcard, parse_place
from peers.memory import parse_size, worker_bytes

WorkerMode = Literal["process", "thread"]

_numbers: dict[int, Iterator[int]] = {}
"""Of each process its own: a forked child begins anew."""

_SETTINGS = [f.name for f in fields(Settings) if f.name not in ("hosts",)]

_VARIABLES: dict[str, type] = {
    "hosts": str,
    "listen": str,
    "advertise": str,
    "port": int,
    "port_span": int,
    "grid": str,
    "slots": int,
    "memory_limit": str,
    "name": str,
    "workers": str,
    "spool": str,
    "journal": str,
    "key_file": str,
    "trace": str,
    "silence_seconds": float,
    "heartbeat_seconds": float,
    "join_timeout": float,
    "quorum": int,
    "copies": int,
    "keep_seconds": float,
    "replace_seconds": float,
}
"""What ``GRID_<NAME>`` may set. ``GRID_PASSWORD`` is read where keys are, and nowhere else."""

VARIABLES = tuple(f"GRID_{name.upper()}" for name in (*_VARIABLES, "password"))


@dataclass(frozen=True)
class Configuration:
    """One peer's settings and what else it was told. ``hosts`` empty: a grid on this host alone.

    ``listen`` empty: on all interfaces if any of ``hosts`` is another machine, else on loopback.
    ``advertise`` is where others find this peer, if that is not an address of this host's own, as
    in containers and behind address translation; with a port, where they find its well-known one.
    ``prints_here``: what user code prints on this peer is shown by it, not by the job's owner.
    ``weak_password``: a short one will do although other hosts can try it (``peers.mincemeat``).
    """

    settings: Settings
    hosts: tuple[str, ...]
    listen: tuple[str, ...]
    advertise: Place | None
    name: str
    workers: WorkerMode
    spool: Path | None
    journal: Path | None
    key_file: str | None
    trace: Path | None
    password: str | bytes | None
    weak_password: bool
    prints_here: bool
    named: bool = True
    """Whether ``name`` was given, and is not made of host and process."""

    def in_child(self) -> "Configuration":
        """The same for a forked child, which is another process."""
        return self if self.named else replace(self, name=_default_name())

    @property
    def places(self) -> tuple[Place, ...]:
        """``hosts``, each with the port that was said with it."""
        return tuple(parse_place(host) for host in self.hosts)

    @property
    def loopback_only(self) -> bool:
        """Whether no other host can ever reach this grid."""
        said = [*(place.host for place in self.places), *self.listen]
        return all(is_loopback(host) for host in said)

    def door(self, host: str, port: int) -> Address:
        """Where others find this peer if it serves at ``port``; ``host`` is this host to them."""
        told = self.advertise
        if told is not None and told.port is not None and port == self.settings.port:
            port = told.port
        return Address(host, port)

    def doors(self, host: str) -> tuple[Address, ...]:
        """Everywhere that this peer may be found serving. Who tells the port that others find is
        taken to have seen to that port alone, not to its fallbacks."""
        exact = self.advertise is not None and self.advertise.port is not None
        ports = self.settings.ports[:1] if exact else self.settings.ports
        return tuple(self.door(host, port) for port in ports)

    def __repr__(self) -> str:
        return f"<Configuration {self.name} grid={self.settings.grid} port={self.settings.port}>"


def configure(given: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Configuration:
    """Check what was given and fill in the rest. Raises ``Misuse``."""
    known = [*_SETTINGS, *_VARIABLES, "password", "prints_here", "weak_password"]
    check_names(dict(given), known, "Peer")
    values = {name: value for name, value in given.items() if value is not None}
    for name, kind in _VARIABLES.items():
        text = environ.get(f"GRID_{name.upper()}")
        if name not in values and text:
            values[name] = _read(name, kind, text)
    places = _places(values.pop("hosts", ()), "hosts")
    listen = _listen(values.pop("listen", ()))
    advertise = _advertise(values.pop("advertise", ""), places, listen)
    workers = values.pop("workers", "process")
    if workers not in ("process", "thread"):
        raise Misuse(f"workers={workers!r} is neither 'process' nor 'thread'")
    told = values.pop("name", "")
    name = told or _default_name()
    check_name(name, "name")
    spool = values.pop("spool", None)
    journal = values.pop("journal", None)
    key_file = values.pop("key_file", None)
    trace = values.pop("trace", None)
    password = values.pop("password", None)
    weak_password = bool(values.pop("weak_password", False))
    prints_here = bool(values.pop("prints_here", False))
    if isinstance(values.get("memory_limit"), str):
        values["memory_limit"] = parse_size(values["memory_limit"])
    values.setdefault("slots", os.cpu_count() or 1)
    _default_ports(values, places)
    hosts = tuple(str(place) for place in places)
    _check_types(values)
    settings = Settings(hosts=hosts, **values)
    worker_bytes(settings.memory_limit, settings.slots)  # raises where it is too little
    if settings.serves and advertise is None:
        _check_reachable(places, listen)
    return Configuration(
        settings=settings,
        hosts=hosts,
        listen=listen,
        advertise=advertise,
        name=name,
        workers=workers,
        spool=Path(spool) if spool else None,
        journal=Path(journal) if journal else None,
        key_file=str(key_file) if key_file else None,
        trace=Path(trace) if trace else None,
        password=password,
        weak_password=weak_password,
        prints_here=prints_here,
        named=bool(told),
    )


_KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "True or False"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
}
"""What values each type of setting takes, and in words."""


def _check_types(values: Mapping[str, Any]) -> None:
    """Raise ``Misuse`` for a setting whose value is of another type than it should be."""
    for field in fields(Settings):
        if field.name in values and field.type in _KINDS:
            value = values[field.name]
            kinds, wanted = _KINDS[field.type]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise Misuse(f"{field.name}={value!r} is not {wanted}")


def _default_name() -> str:
    """The host and process; further peers of one process are numbered."""
    pid = os.getpid()
    number = next(_numbers.setdefault(pid, itertools.count(1)))
    return f"{socket.gethostname()}-{pid}" + (f".{number}" if number > 1 else "")


def _read(name: str, kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}.get(kind, kind.__name__)
        raise Misuse(f"GRID_{name.upper()}={text!r} is not {wanted}") from None


def _default_ports(values: dict[str, Any], places: tuple[Place, ...]) -> None:
    """The port that is said with every host is the well-known one, and then has no fallbacks."""
    said = {place.port for place in places}
    (only,) = said if len(said) == 1 else (None,)
    if only is not None and "port" not in values:
        values["port"] = only
        values.setdefault("port_span", 1)
    values.setdefault("port", PORT)


def _texts(given: str | Iterable[str], what: str) -> list[str]:
    """Take ``"a,b"`` or a list of texts."""
    if isinstance(given, str):
        given = given.split(",")
    if not isinstance(given, Iterable):
        raise Misuse(f"{what}={given!r} is neither a text nor a list; write {what}='node1,node2'")
    texts = list(given)
    for text in texts:
        if not isinstance(text, str):
            raise Misuse(f"{what} must be names or addresses, not {text!r}")
    return [text.strip() for text in texts if text.strip()]


def _places(given: str | Iterable[str], what: str) -> tuple[Place, ...]:
    """Read names and addresses; duplicates count once."""
    places = dict.fromkeys(_place(text, what) for text in _texts(given, what))
    for place in places:
        if what != "listen" and is_wildcard(place.host):
            raise Misuse(f"{what} has {place}, which nobody can dial; give an address of the host")
    return tuple(places)


def _place(text: str, what: str) -> Place:
    try:
        return parse_place(text)
    except ValueError as error:
        raise Misuse(f"{what} has {text[:80]!r}, which is {error}") from None


def _listen(given: str | Iterable[str]) -> tuple[str, ...]:
    places = _places(given, "listen")
    for place in places:
        if place.port is not None:
            raise Misuse(f"listen has {place}; it takes no port, port={place.port} says which")
    return tuple(place.host for place in places)


def _advertise(given: str, places: tuple[Place, ...], listen: tuple[str, ...]) -> Place | None:
    """Read where others find this peer, and see that it fits to what they and it were told."""
    found = _places(given, "advertise")
    if not found:
        return None
    if len(found) > 1:
        raise Misuse(f"advertise={given!r} names several; give the one that others should dial")
    (told,) = found
    alone = all(is_loopback(place.host) for place in places)
    if is_loopback(told.host) and not alone:
        raise Misuse(
            f"advertise={told}: the other hosts would dial themselves; give the address or name "
            "under which they reach this one"
        )
    if not is_loopback(told.host) and alone and all(is_loopback(host) for host in listen):
        raise Misuse(
            f"advertise={told} is for other hosts, but this peer listens on loopback only; name "
            "the hosts of the grid (hosts=), or where to listen (listen=)"
        )
    return told


def _check_reachable(places: tuple[Place, ...], listen: tuple[str, ...]) -> None:
    others = [place.host for place in places if not is_loopback(place.host)]
    if others and listen and all(is_loopback(host) for host in listen):
        raise Misuse(
            f"listen={','.join(listen)} cannot be reached by {others[0]}; listen on an address "
            "that the other hosts can dial, or say with advertise= where they find this peer"
        )
