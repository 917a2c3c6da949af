"""What ``grid doctor`` sees on this host alone: versions, key, names, ports, spool, limits.

Each check answers with findings: what was looked at, a verdict, what was found, and what to do.
Nothing is changed here, but that a key of the user's own is made if there is none, as by every
command.
"""

import os
import platform
import resource
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rich.filesize import decimal

from grid.errors import BadKey
from grid.messages import PROTOCOL
from grid.suggest import did_you_mean
from peers.addresses import is_loopback, listen_hosts
from peers.candidates import Candidates
from peers.configuration import VARIABLES, Configuration
from peers.detached import default_root as default_journal
from peers.keys import PASSWORD_LENGTH_MIN, Key, find_key
from peers.security import key_tag
from peers.store import default_root as default_spool

Verdict = Literal["ok", "warn", "bad"]

SPOOL_BYTES_MIN = 100 << 20
SPOOL_BYTES_GOOD = 1 << 30
"""Outputs of jobs go here: with less, large jobs are handed back; with far less, all are."""

FILES_MIN = 1024
"""Descriptors: a server has one for each peer, and data connections beside."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's. ``fix`` says what to do, where there is something to do."""

    check: str
    verdict: Verdict
    found: str
    fix: str = ""


def examine_versions() -> Finding:
    """What runs here; others have to have the same minor version of Python."""
    try:
        version = metadata.version("peergrid")
    except metadata.PackageNotFoundError:
        version = "of a checkout"
    found = f"peergrid {version}, protocol {PROTOCOL}, Python {platform.python_version()}"
    return Finding("versions", "ok", found)


def examine_variables(environ: Mapping[str, str]) -> Iterator[Finding]:
    """What is set and nearly a variable of ours, as nobody reads it. What else begins with GRID_
    may be of other programs."""
    for name in sorted(environ):
        hint = did_you_mean(name, VARIABLES)
        if name.startswith("GRID_") and name not in VARIABLES and hint:
            found = f"{name} is set, and nobody reads it{hint}"
            yield Finding("variables", "warn", found, "correct its name, or remove it")


def examine_key(meant: Configuration) -> tuple[Finding, Key | None]:
    """Where the key comes from, and whether it is safe there."""
    try:
        key = find_key(
            password=meant.password, key_file=meant.key_file, loopback_only=meant.loopback_only
        )
    except BadKey as error:
        text = str(error)
        what, _, fix = text.partition(": run " if ": run `" in text else ". ")
        return Finding("key", "bad", what, fix or "see `grid key --help`"), None
    found = f"{key.source}, tag {key_tag(meant.settings.grid, key)}"
    if key.path is not None and _others_may_write(key.path.parent):
        fix = f"chmod go-w {key.path.parent}"
        return Finding("key", "bad", f"others may replace {key.path}", fix), key
    if key.stretch and len(key.secret) < PASSWORD_LENGTH_MIN:
        fix = "use a longer one, or a key file (`grid key --new FILE`)"
        return Finding("key", "warn", f"{found}; a short password", fix), key
    return Finding("key", "ok", found), key


def _others_may_write(folder: Path) -> bool:
    """Whether others may put files of their own in the place of one's own there."""
    mode = folder.stat().st_mode
    return bool(mode & 0o022) and not mode & stat.S_ISVTX


def examine_names(meant: Configuration, found: Candidates) -> list[Finding]:
    """What the hosts mean, and whether this one is among them."""
    if not meant.hosts:
        return [Finding("names", "ok", "no hosts are given: a grid of this host alone")]
    findings = [
        Finding("names", "bad", reason, "correct --hosts, or have the name known on this host")
        for reason in found.unknown
    ]
    hosts = dict.fromkeys(address.host for address in found.addresses)
    if hosts:
        findings.append(Finding("names", "ok", f"hosts are {', '.join(hosts)}"))
    if not found.own and meant.advertise is None:
        what = "this host is none of them: it can work, but cannot serve where others look first"
        findings.append(Finding("names", "warn", what, "add it to --hosts on every host"))
    return findings


def examine_ports(meant: Configuration) -> list[Finding]:
    """Whether this host's peers may have the well-known port, and its fallbacks."""
    hosts = listen_hosts(meant.listen, loopback_only=meant.loopback_only)
    refused = {port: reason for port in meant.settings.ports if (reason := _refused(hosts, port))}
    if not refused:
        return [Finding("ports", "ok", f"{_span(meant.settings.ports)} can be had here")]
    verdict: Verdict = "bad" if len(refused) == len(meant.settings.ports) else "warn"
    return [
        Finding("ports", verdict, f"port {port}: {reason}", "choose another with --port")
        for port, reason in refused.items()
    ]


def _span(ports: tuple[int, ...] | range) -> str:
    return f"port {ports[0]}" if len(ports) == 1 else f"ports {ports[0]} to {ports[-1]}"


def _refused(hosts: tuple[str, ...], port: int) -> str:
    """Why a port cannot be had, unless because somebody listens there: that is for others to say.

    Bound but never listened on: nobody who seeks a server is misled, nobody who binds disturbed.
    """
    for host in hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((host, port))
            except PermissionError:
                return "the system keeps it for privileged programs"
            except OSError:
                continue  # somebody has it, or this host lacks the address
    return ""


def examine_folders(meant: Configuration) -> list[Finding]:
    """Whether outputs and journals have a place, room, and no other writers."""
    return [
        _examine_folder("spool", meant.spool or default_spool(), "--spool"),
        _examine_folder("journal", meant.journal or default_journal(), "--journal"),
    ]


def _examine_folder(check: str, folder: Path, flag: str) -> Finding:
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    elsewhere = f"choose another folder with {flag}"
    if not there.is_dir():
        return Finding(check, "bad", f"{there} is no folder", elsewhere)
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(check, "bad", f"{there} cannot be written to by you", elsewhere)
    if there == folder.absolute() and there.stat().st_uid != os.geteuid():
        return Finding(check, "bad", f"{there} belongs to somebody else", elsewhere)
    free = shutil.disk_usage(there).free
    room = f"{folder}, {decimal(free)} free"
    if free < SPOOL_BYTES_GOOD:
        verdict: Verdict = "bad" if free < SPOOL_BYTES_MIN else "warn"
        return Finding(check, verdict, room, f"make room, or {elsewhere}")
    return Finding(check, "ok", room)


def examine_limits() -> Finding:
    """Whether this user's processes may have descriptors enough."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{'no limit of' if soft == resource.RLIM_INFINITY else soft} open files"
    if soft != resource.RLIM_INFINITY and soft < FILES_MIN:
        return Finding("limits", "warn", found, f"ulimit -n {FILES_MIN}, or more")
    return Finding("limits", "ok", found)


def is_alone(meant: Configuration) -> bool:
    """Whether no other host is meant."""
    return all(is_loopback(place.host) for place in meant.places)
