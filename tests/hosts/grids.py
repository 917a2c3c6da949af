"""Grids over several hosts, as the tests of one fault each need them: begun, watched, timed.

Times are of the monotonic clock, which all processes of a machine share, and are noted by the
peers themselves (``agent``), so that asking for them costs nothing at the moment that counts.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.hosts.network import Host, Member
from tests.live.harness import until

QUICK = {
    "heartbeat_seconds": 0.2,
    "silence_seconds": 2.0,
    "host_silence_seconds": 0.8,
    "rival_seconds": 0.5,
}
"""For tests of what comes after a silence, not of how long it takes to be noticed."""

REPLACED_SECONDS = 3.0
"""By when a host that died without a word has to be replaced, by default settings."""


def start(hosts: list[Host], said: Any, **settings: Any) -> list[Member]:
    """One peer on each host, with one slot but for the first; wait until they agree on a server."""
    first = hosts[0].start("one", hosts=said, **{"slots": 0, **settings})
    rest = [host.begin(f"on-{host.name}", hosts=said, **settings) for host in hosts[1:]]
    for member in rest:
        assert member.joined().startswith("one 1")
    return [first, *rest]


def follow(members: list[Member], term: int, seconds: float = 30.0) -> str:
    """Wait until all follow one server of a term past this one; return its name."""

    def one() -> str:
        said = [member.ask("follows") for member in members]
        servers = {(follows["server"], follows["term"]) for follows in said}
        ((server, now),) = servers if len(servers) == 1 else {("", 0)}
        return server if now > term else ""

    return until("all follow one server", one, seconds)


def at(member: Member, name: str, maps: int) -> None:
    """Wait until so many items of a job are mapped."""
    until(f"{maps} maps", lambda: member.ask("progress", name=name)["maps_done"] >= maps)


def since(member: Member, moment: float, term: int) -> float:
    """How long after ``moment`` it followed a server past this term for the first time."""
    return float(
        next(when for when, server, now in member.ask("history") if server and now > term) - moment
    )


def back(member: Member, moment: float) -> float:
    """Wait until it has lost its server after ``moment`` and follows one again; return how long
    after ``moment`` that was."""

    def times() -> list[float]:
        history = [entry for entry in member.ask("history") if entry[0] > moment]
        lost = [when for when, server, _ in history if not server]
        return [when for when, server, _ in history if server and lost and when > lost[0]]

    return until(f"{member.name} has lost its server and found one", times)[0] - moment


def terms(members: Iterable[Member]) -> set[int]:
    """The terms that these follow."""
    return {member.ask("follows")["term"] for member in members}


def mapped(folder: Path) -> list[str]:
    """The host of each time that an item of a ``trace`` job was mapped."""
    return [path.name.split("-")[1] for path in folder.iterdir()]
