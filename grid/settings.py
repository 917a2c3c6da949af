"""The settings of one peer: plain numbers and names, the same on every node.

Times are seconds. A setting's comment says why it has its default.
"""

from dataclasses import dataclass
from typing import Any

from grid.errors import Misuse
from grid.suggest import did_you_mean

PORT = 11235
"""The well-known port of the original's tradition: the Fibonacci numbers."""

PARTITIONS = 256
"""Fixed, so that any two peers cut alike; empty partitions cost nothing."""

PARTITIONS_MAX = 1 << 16
"""The server keeps a sum for each partition and holder, so there must not be too many."""

NAME_MAX = 256
"""The longest name, in characters, of a grid, peer or transaction: every message repeats them."""

SLOTS_MAX = 1 << 12
"""More tasks at once than any machine has use for."""


ADOPTERS = 4
"""About so many of a host look for what a dead neighbour left: one is enough, and hundreds would
stand in line."""

KEEP_SECONDS_MAX = 10 * 366 * 86400.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How one peer behaves. Every node of a grid should be given the same."""

    grid: str = "grid"
    """The grid's name; another name is another grid, even with the same key."""

    hosts: tuple[str, ...] = ()
    """Hosts whose well-known port is tried, in this order. None: a grid on this host alone."""

    port: int = PORT
    port_span: int = 3
    """The port and its fallbacks, for a port held by a frozen process or a stranger."""

    slots: int = 1
    """Tasks run at once; 0 for a peer that only submits."""

    memory_limit: int = 0
    """Bytes that a peer with its workers may use; what does not fit goes to disk. 0: half of the
    memory of the host or container."""

    serves: bool = True
    """May become server. Visitors never do."""

    heartbeat_seconds: float = 0.5
    """Cheap at a few hundred peers, and several fit into the silence limit."""

    silence_seconds: float = 4.0
    """Silence that makes a process dead to us. More than a user's C call that holds the GIL for
    two seconds needs; a dead process on a live host is noticed at once, by its closed socket, and
    a dead host by the kernel (``host_silence_seconds``)."""

    host_silence_seconds: float = 2.0
    """Unacknowledged bytes for this long make the host dead: the kernel answers for a busy
    process, so this may be shorter."""

    probe_seconds: float = 0.75
    """How long a listener may take to answer a greeting before it counts as frozen."""

    rank_step_seconds: float = 0.15
    """How much longer each next successor waits before it grabs the port."""

    quorum: int = 0
    """A server with fewer members that could serve gives no work and ends no job: for those who
    must not have two halves of a cut grid at work. 0: every half works."""

    rival_seconds: float = 2.0
    """How often a server looks for another server of the same grid."""

    join_timeout: float = 10.0
    """How long ``Peer()`` may take to join or to serve."""

    orphan_run_seconds: float = 10.0
    """How long attempts whose transaction no owner has claimed may keep running."""

    orphan_hold_seconds: float = 600.0
    """How long outputs that no server claims are kept. Long enough for an owner to return."""

    retain_seconds: float = 300.0
    """How long the result of a named transaction is there for latecomers."""

    copies: int = 3
    """By how many peers a detached transaction and its result are kept: two may be lost."""

    keep_seconds: float = 7 * 86400.0
    """How long the end of a detached transaction is kept, by the clock on the wall: a week."""

    replace_seconds: float = 600.0
    """How long a detached transaction may be on the disks of fewer hosts than ``copies`` before one
    more keeps it. Longer than a host takes to start again, as a copy may be large."""

    chaos: bool = False
    """May be killed, frozen or cut off by ``grid chaos``. Not by default: a peer may live in a
    program that has more to do. ``grid up`` peers allow it."""

    linger_seconds: float = 2.0
    """The most that ``close()`` waits for others to have what they need from this peer."""

    drain_seconds: float = 60.0
    """The most that ``drain()``, and ``grid up`` on SIGTERM, wait for tasks to end and for others
    to have what they need: less than what supervisors give a process before they kill it."""

    task_seconds: float = 0.05
    """What a batch should take: long against a message, short against a failure. Where much is left
    to do, up to four times as long."""

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise Misuse(f"port={self.port} is not a port; use a number from 1 to 65535")
        if self.port_span < 1 or self.port + self.port_span > 65536:
            raise Misuse(
                f"port_span={self.port_span} does not fit: ports {self.port} to "
                f"{self.port + self.port_span - 1} must be between 1 and 65535"
            )
        if not 0 <= self.slots <= SLOTS_MAX:
            raise Misuse(f"slots={self.slots}: use 0 to only submit, or how many tasks run at once")
        if self.memory_limit < 0:
            raise Misuse(f"memory_limit={self.memory_limit}: use 0 for the default, or bytes")
        if self.copies < 1:
            raise Misuse(f"copies={self.copies} keeps nothing; use 1 or more")
        if not 0 < self.keep_seconds <= KEEP_SECONDS_MAX:
            raise Misuse(f"keep_seconds={self.keep_seconds} is not between 0 and ten years")
        if self.replace_seconds <= 0:
            raise Misuse(f"replace_seconds={self.replace_seconds} is no time; use more than 0")
        check_name(self.grid, "grid")
        if self.quorum < 0:
            raise Misuse(f"quorum={self.quorum}: use 0 for none, or how many peers must be there")
        if self.silence_seconds < 2 * self.heartbeat_seconds:
            raise Misuse(
                f"silence_seconds={self.silence_seconds} leaves no room for two heartbeats of "
                f"{self.heartbeat_seconds}; make it at least {2 * self.heartbeat_seconds}"
            )

    @property
    def ports(self) -> range:
        """The well-known port and its fallbacks, in order."""
        return range(self.port, self.port + self.port_span)


def check_name(name: object, what: str) -> None:
    """Raise ``Misuse`` unless ``name`` is text that every message can repeat."""
    if not isinstance(name, str):
        raise Misuse(f"{what}={name!r} is not text; give a name such as 'nightly'")
    if len(name) > NAME_MAX:
        raise Misuse(f"{what}={name[:40]!r}... has {len(name)} characters; use at most {NAME_MAX}")
    if not name.isprintable():
        raise Misuse(f"{what}={name!r} has characters that cannot be shown; use plain text")


def check_names(given: dict[str, Any], known: list[str], where: str) -> None:
    """Raise ``Misuse`` for the first name in ``given`` that is not ``known``."""
    for name in given:
        if name not in known:
            raise Misuse(f"{where} has no setting {name!r}{did_you_mean(name, known)}")
