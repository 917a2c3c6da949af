"""Hosts and addresses: which are this host's own, and what makes two processes share a host.

Promises: ``host_id`` is equal for two processes exactly if they run on the same boot of the same
machine, as the same user, and see the same files and the same network: then they may read each
other's spool and adopt what the other left. ``listen_hosts`` names only addresses that can be
bound.

Does not keep anything: each call looks afresh, since networks come and go.
"""

import hashlib
import ipaddress
import os
import socket
from pathlib import Path

_MACHINE_FILES = ("/etc/machine-id", "/proc/sys/kernel/random/boot_id")
_NAMESPACES = ("/proc/self/ns/mnt", "/proc/self/ns/net")
_ID_DIGITS = 16

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


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only ever mean this host: a loopback number, or ``localhost``."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def listen_hosts(*, loopback_only: bool) -> tuple[str, ...]:
    """Return the addresses to listen on: IPv4 and, where this host has it, IPv6."""
    wanted = LOOPBACK_HOSTS if loopback_only else ALL_HOSTS
    return tuple(host for host in wanted if _can_bind(host)) or wanted[:1]


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


def is_own(host: str) -> bool:
    """Whether ``host`` is one of this host's own addresses or names. Unknown names are not."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(_can_bind(str(where[0])) for _, _, _, _, where in found)


def _can_bind(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.bind((host, 0))
    except OSError:
        return False
    return True
