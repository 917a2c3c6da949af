"""Hosts and addresses: how people write them, which are this host's own, and what makes two
processes share a host.

Promises: ``host_id`` is equal for two processes exactly if they run on the same boot of the same
machine, as the same user, and see the same files and the same network: then they may read each
other's spool and adopt what the other left. ``listen_hosts`` names only addresses that can be
bound.

Does not keep anything: each call looks afresh, since networks come and go.
"""

import hashlib
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from grid.errors import Misuse

_MACHINE_FILES = ("/etc/machine-id", "/proc/sys/kernel/random/boot_id")
_NAMESPACES = ("/proc/self/ns/mnt", "/proc/self/ns/net")
_ID_DIGITS = 16
_NAME_MAX = 253  # of the domain name system

LOOPBACK_HOSTS = ("127.0.0.1", "::1")
ALL_HOSTS = ("0.0.0.0", "::")  # noqa: S104  (binding to all interfaces is what these are for)


def host_id(spool: str = "") -> str:
    """Return the identity of this machine, as this user sees it: 16 hexadecimal digits.

    Containers count as machines, and so does each ``spool``: peers that do not share one cannot
    read each other's files. Reveals nothing about the machine.
    """
    facts = [f"uid={os.geteuid()}", f"spool={spool}"]
    for name in _MACHINE_FILES:
        try:
            facts.append(f"{name}={Path(name).read_text(encoding='ascii').strip()}")
        except (OSError, UnicodeDecodeError):
            pass  # containers may lack the one, other systems both
    for name in _NAMESPACES:
        try:
            facts.append(f"{name}={Path(name).readlink()}")
        except OSError:
            pass  # a system without namespaces
    if len(facts) == 2:
        facts.append(f"name={socket.gethostname()}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:_ID_DIGITS]


@dataclass(frozen=True)
class Place:
    """A host, by name or number, and the port if one was said."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_place(text: str) -> Place:
    """Read ``host``, ``host:port``, ``::1`` or ``[::1]:port``.

    Raises ``ValueError``; its text goes on after "... is", as in "no port".
    """
    text = text.strip()
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")) or ":" not in host:
            raise ValueError("no IPv6 address in brackets; write [::1] or [::1]:11235")
        port = rest[1:] if rest else None
    elif text.count(":") > 1:
        host, port = text, None
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
    return Place(_checked_host(host), None if port is None else _checked_port(port))


def _checked_host(host: str) -> str:
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        if number.is_multicast:
            raise ValueError("no address of one host")
        return str(number)
    if ":" in host:
        raise ValueError("no IPv6 address; write a port after it as [ADDRESS]:PORT")
    if re.fullmatch(r"[\d.]+", host):
        raise ValueError("no IPv4 address")
    if len(host) > _NAME_MAX or not re.fullmatch(r"\w([\w.-]*[\w.])?", host):
        raise ValueError("no name or address of a host")
    return host


def _checked_port(text: str) -> int:
    port = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else 0
    if not 0 < port < 65536:
        raise ValueError(f"no address: its port {text!r} should be a number from 1 to 65535")
    return port


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only ever mean this host: a loopback number, or ``localhost``."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_wildcard(host: str) -> bool:
    """Whether ``host`` means every address of whoever listens there, so that none can dial it."""
    return host in ALL_HOSTS


def listen_hosts(given: tuple[str, ...] = (), *, loopback_only: bool = False) -> tuple[str, ...]:
    """Return the addresses to listen on, as numbers: what was ``given``, else all or loopback,
    IPv4 and, where this host has it, IPv6.

    Raises ``Misuse`` for what is given and not of this host.
    """
    if not given:
        wanted = LOOPBACK_HOSTS if loopback_only else ALL_HOSTS
        return tuple(host for host in wanted if can_bind(host)) or wanted[:1]
    found: dict[str, None] = {}
    for name in given:
        try:
            numbers = [
                str(where[0])
                for _, _, _, _, where in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            ]
        except (OSError, UnicodeError) as error:
            raise Misuse(f"listen has {name!r}, which cannot be looked up: {error}") from error
        bound = [number for number in numbers if can_bind(number)]
        if not bound:
            raise Misuse(
                f"listen has {name!r}, which is no address of this host; name its own addresses, "
                "or leave listen out to listen on all of them"
            )
        found.update(dict.fromkeys(bound))
    return tuple(found)


def listens_on(host: str, listening: tuple[str, ...]) -> bool:
    """Whether who listens on ``listening`` can be dialled at ``host``, an address of its own."""
    return host in listening or (ALL_HOSTS[1] if ":" in host else ALL_HOSTS[0]) in listening


def probe_hosts(listening: tuple[str, ...]) -> tuple[str, ...]:
    """Return where this process can dial what it would listen on itself.

    IPv4 and IPv6 of all interfaces, or of loopback, are bound together or not at all, so one
    address stands for both.
    """
    loopback = dict(zip(ALL_HOSTS, LOOPBACK_HOSTS, strict=True))
    hosts = tuple(dict.fromkeys(loopback.get(host, host) for host in listening))
    return hosts if LOOPBACK_HOSTS[0] not in hosts else tuple(h for h in hosts if h != "::1")


def local_host_towards(host: str) -> str:
    """Return the address of this host's that ``host`` would be reached from.

    Nothing is sent. Raises ``OSError`` if the name is unknown or there is no route.
    """
    failure: OSError | None = None
    for family, _, _, _, where in socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect(where)
                return str(sock.getsockname()[0])
        except OSError as error:
            failure = error
    raise failure or OSError(f"no address for {host}")


def can_bind(host: str) -> bool:
    """Whether ``host``, a number, is an address of this host."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.bind((host, 0))
    except OSError:
        return False
    return True
