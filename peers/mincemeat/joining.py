"""What servers and clients share: the port, passwords as the original took them, who is local.

The original took any password, the empty one too. Here a short one is taken as well, with one
warning, and only where other hosts could try it. It is stretched like any other; that slows
guessing and does not prevent it.
"""

import errno
import logging
import os
import socket
from collections.abc import Iterable

from grid.errors import Misuse
from peers.addresses import is_loopback
from peers.keys import PASSWORD_LENGTH_MIN

SERVER_NAME = "mincemeat-server-"
"""Begins the names of peers that are a ``Server``, for others to know one by."""

log = logging.getLogger("peers.mincemeat")

_warned: set[str] = set()  # once for each process


def as_password(password: object) -> str | bytes:
    """Return a password that the grid takes: text or bytes, None being the empty one."""
    if password is None:
        return ""
    if isinstance(password, bytearray):
        return bytes(password)
    if not isinstance(password, str | bytes):
        raise Misuse(f"the password is {type(password).__name__}; give text or bytes")
    return password


def warn_if_weak(password: str | bytes, *, local: bool) -> None:
    """Say once that others can guess this password, if other hosts can try it."""
    if local or len(password) >= PASSWORD_LENGTH_MIN or "weak" in _warned:
        return
    _warned.add("weak")
    log.warning(
        "the password has fewer than %d characters, and other hosts can try to guess it; who knows "
        "it can run code here: use a longer one, or interface='localhost'",
        PASSWORD_LENGTH_MIN,
    )


def is_local(host: str) -> bool:
    """Whether ``host`` means this host alone, as it is written; nothing does too."""
    return not host or is_loopback(host)


def check_port(port: object) -> int:
    """Return the port, or raise ``Misuse`` for what is none."""
    if isinstance(port, str) and port.isdecimal():
        port = int(port)
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise Misuse(f"port={port!r} is not a port; use a number from 1 to 65535")
    return port


def refuse_asyncore(schedule: object) -> None:
    """Raise ``Misuse`` for what only the original's event loop could do."""
    if schedule:
        raise Misuse("schedule= is not there any more: use threading.Timer for what is to be timed")


def check_port_is_free(hosts: Iterable[str], port: int) -> None:
    """Raise ``OSError``, as binding did in the original, if somebody listens there."""
    for host in hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, port))
            sock.listen(1)


def in_use(port: int) -> OSError:
    """The error of a server that finds another at its port."""
    return OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}: port {port}")
