"""Where a server may be: ``hosts`` and ports made into addresses, names looked up afresh.

A name may mean many addresses, and other ones tomorrow: each is a candidate, and names are looked
up again for as long as a server is sought. Each name has a thread of its own while it is looked up,
since the system's resolver cannot be told to stop; one that hangs is waited for a bounded time, is
left to end by itself, and counts when it has.

Promises: ``Resolver.resolve`` returns within ``seconds`` whatever name servers do, never raises,
and says which names mean nothing. What a name meant is kept while its name server is away.
"""

import ipaddress
import logging
import socket
import threading
import time
from dataclasses import dataclass

from grid.messages import Address
from peers.addresses import (
    can_bind,
    is_loopback,
    is_wildcard,
    listens_on,
    local_host_towards,
    probe_hosts,
)
from peers.configuration import Configuration

LOOKUP_SECONDS = 2.0
"""How long names are waited for: far longer than an answer takes, shorter than most resolvers try
a name server that is away."""

_ELSEWHERE = ("192.0.2.1", "2001:db8::1")
"""Addresses of nobody, kept for documentation: the way to them is the way to everywhere."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidates:
    """Where a server may be, in order and without duplicates, hosts as numbers.

    ``own`` are those that this peer would be found at if it served; ``unknown`` says of names
    why they mean nothing now.
    """

    addresses: tuple[Address, ...]
    own: tuple[Address, ...]
    unknown: tuple[str, ...]


class Resolver:
    """Looks up the hosts of ``configuration``, for a peer that listens on ``listening``."""

    def __init__(self, configuration: Configuration, listening: tuple[str, ...]) -> None:
        self._places = configuration.places
        self._ports = configuration.settings.ports
        self._listening = listening
        self._lock = threading.Lock()
        self._names = {place.host: _Name(place.host) for place in configuration.places}

    def resolve(self, seconds: float = LOOKUP_SECONDS) -> Candidates:
        """Look every name up, at once, and wait for at most ``seconds``. For a thread that may
        block."""
        with self._lock:
            for name in self._names.values():
                name.begin()
            deadline = time.monotonic() + seconds
            reasons = [name.wait(deadline - time.monotonic()) for name in self._names.values()]
            addresses = tuple(dict.fromkeys((*self._usual(), *self._fallbacks())))
        bindable = {host: can_bind(host) for host in {address.host for address in addresses}}
        own = tuple(
            address
            for address in addresses
            if address.port in self._ports
            and bindable[address.host]
            and listens_on(address.host, self._listening)
        )
        return Candidates(addresses, own, tuple(reason for reason in reasons if reason))

    def _usual(self) -> list[Address]:
        """What is tried first of each host: the port said with it, or the well-known one."""
        if not self._places:
            return [Address(host, self._ports[0]) for host in probe_hosts(self._listening)]
        return [
            Address(host, place.port or self._ports[0])
            for place in self._places
            for host in self._names[place.host].hosts
        ]

    def _fallbacks(self) -> list[Address]:
        hosts = [
            host
            for place in self._places
            if place.port is None
            for host in self._names[place.host].hosts
        ]
        if not self._places:
            hosts = list(probe_hosts(self._listening))
        return [Address(host, port) for port in self._ports[1:] for host in hosts]


class _Name:
    """A host's name, or number, and what it was last found to mean."""

    def __init__(self, name: str) -> None:
        self.hosts: tuple[str, ...] = (name,) if _is_number(name) else ()
        self._name = name
        self._failure = ""
        self._told = ""
        self._looking: threading.Thread | None = None

    def begin(self) -> None:
        """Begin to look it up, unless that is still going on."""
        if self._looking is None and not _is_number(self._name):
            self._looking = threading.Thread(target=self._look, name="grid-names", daemon=True)
            self._looking.start()

    def wait(self, seconds: float) -> str:
        """Wait for the answer; return why there is none."""
        if self._looking is None:
            return ""
        self._looking.join(max(0.0, seconds))
        if self._looking.is_alive():
            reason = f"no name server has answered yet for the host {self._name}"
        else:
            self._looking = None
            reason = self._failure
        if reason and reason != self._told:
            log.warning("%s; it is looked up again", reason)
        self._told = reason
        return reason

    def _look(self) -> None:
        try:
            found = socket.getaddrinfo(self._name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            why = (error.strerror if isinstance(error, OSError) else "") or str(error)
            self._failure = f"nobody knows the host {self._name} ({why})"
        else:
            self.hosts = tuple(dict.fromkeys(str(where[0]) for _, _, _, _, where in found))
            self._failure = ""


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def reachable_as(found: Candidates, listening: tuple[str, ...]) -> str:
    """Return the host under which others should dial a peer that listens on ``listening``.

    The address from which the other hosts are reached, the first listed before the rest; without
    any, its own in the list, then the one from which everywhere else is. What it does not listen
    on is none of these.
    """
    own = [address.host for address in found.own if not is_loopback(address.host)]
    others = [address.host for address in found.addresses if address.host not in own]
    options = [_from(host) for host in others if not is_loopback(host)]
    options += [*own, *(_from(host) for host in _ELSEWHERE), *listening]
    for host in options:
        if host and _dialable(host) and listens_on(host, listening):
            return host
    return probe_hosts(listening)[0]


def _from(host: str) -> str:
    try:
        return local_host_towards(host)
    except OSError:
        return ""  # no way there


def _dialable(host: str) -> bool:
    """Whether it means this host to others: neither loopback, nor all, nor only of one link."""
    return not (is_loopback(host) or is_wildcard(host) or host.startswith("fe80:"))
