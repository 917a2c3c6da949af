"""Detached jobs on real hosts: keepers die with their disks; others keep copies in their place."""

from tests.hosts.grids import QUICK, at, start
from tests.hosts.network import Network
from tests.live.harness import until

ITEMS = 600
"""About six seconds of work for one slot: it is under way all the while."""


def test_a_job_outlives_every_host_that_it_was_given_to(network: Network) -> None:
    """Two copies on four hosts. Both hosts that had it first die, one after the other, each when
    another has fetched a copy; so does, at last, one that has its result."""
    hosts = network.hosts(4)
    settings = {**QUICK, "copies": 2, "replace_seconds": 0.5}
    members = start(hosts, "h1,h2,h3,h4", **settings)
    alive = {member.name: (host, member) for host, member in zip(hosts, members, strict=True)}
    record = members[3].ask("submit", name="job", items=ITEMS, detached=True)

    def kept() -> list[str]:
        """Who has a copy, once there are two: one that was slow to take it is replaced."""
        found: list[str] = members[3].ask("keepers", record=record)
        return found if len(found) == 2 else []

    first = until("two keep it", kept)
    at(members[3], "job", 20)

    def lose(name: str) -> None:
        """A host dies without a word; wait until there are two copies without it."""
        host, _ = alive.pop(name)
        host.die()
        anyone = next(iter(alive.values()))[1]

        def replaced() -> bool:
            keepers = anyone.ask("keepers", record=record)
            return len(keepers) == 2 and name not in keepers

        until(f"another keeps a copy instead of {name}", replaced)

    for name in first:
        lose(name)
    for _, member in alive.values():
        member.ask("fetch", name="found", record=record, items=ITEMS)
        assert member.ask("result", name="found", timeout=60.0)
    (lost, left) = alive
    alive.pop(lost)[0].die()
    member = alive[left][1]
    until("the other serves alone", lambda: member.ask("follows")["server"] == left)
    member.ask("fetch", name="again", record=record, items=ITEMS)
    assert member.ask("result", name="again", timeout=60.0), "both had it on disk"
