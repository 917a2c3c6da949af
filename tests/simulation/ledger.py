"""Counts detached transactions apart from the grid: which were promised, on whose disks each is,
what users heard of it. Each check names the promise it guards.

It looks at the disks, and at what crosses the border of the cores; never into the cores.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grid.messages import Assign, RecordMeta, Remembered
from grid.server_core import ServerCore
from tests.simulation.disk import Page
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.process import Process

SLACK_SECONDS = 1.0
"""Longer than what is on its way takes."""


@dataclass
class Promise:
    """One detached transaction. ``on_disk`` says from when on hosts have its end."""

    meta: RecordMeta
    returned: bool = False
    cancelled: bool = False
    told: dict[str, None] = field(default_factory=dict)
    on_disk: dict[str, float] = field(default_factory=dict)
    first_end: float | None = None
    last_end: float = 0.0

    @property
    def seconds(self) -> float:
        assert self.meta.keeping is not None
        return self.meta.keeping.seconds


class Ledger:
    """All detached transactions of one simulated grid."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.promises: dict[str, Promise] = {}
        self.disks_lost = False
        self.resumed = 0

    def has(self, record: str) -> bool:
        return record in self.promises

    def cancelled(self, record: str) -> bool:
        return record in self.promises and self.promises[record].cancelled

    # -- what happens ------------------------------------------------------------------

    def knows(self, meta: RecordMeta) -> None:
        self.promises[meta.record] = Promise(meta)

    def returned(self, meta: RecordMeta) -> None:
        """P2: an id is returned when everything is on somebody's disk."""
        promise = self.promises[meta.record]
        promise.returned = True
        if not self.pages(meta.record) and not self.disks_lost:
            self.world.violation(f"P2 {meta.record} is returned and on nobody's disk")

    def cancel(self, record: str) -> None:
        if record in self.promises:
            self.promises[record].cancelled = True

    def ended(self, process: "Process", end: Remembered) -> None:
        """The end of one is on a disk."""
        promise = self.promises[end.meta.record]
        promise.on_disk.setdefault(process.host.name, self.world.now)
        promise.last_end = self.world.now
        if promise.first_end is None:
            promise.first_end = self.world.now
        self.world.note(process.name, f"has the end of {end.meta.record} on disk")

    def told(self, who: str, record: str, outcome: str) -> None:
        """P3: a user hears of an end when it is on disk; and never of two different ones, but where
        it was cancelled in one half of a grid, or ended anew because disks were lost."""
        promise = self.promises.get(record)
        if promise is None:
            return
        if promise.first_end is None:
            self.world.violation(f"P3 {who} hears that {record} is {outcome}: not on disk")
        promise.told[outcome] = None
        if len(promise.told) > 1 and len(self.world.hosts) == 1 and not self.disks_lost:
            self.world.violation(f"P3 {record} has ended in two ways: {list(promise.told)}")

    def looked(
        self,
        process: "Process",
        ended: Sequence[Remembered],
        over: Sequence[Page],
        torn: Sequence[str],
    ) -> None:
        """A process has looked after its host's journal. P2: nothing is removed before its time.
        P3: nothing whose time is over is taken up again."""
        now, who = self.world.now, process.name
        for record in torn:
            self.world.note(who, f"sets {record} aside")
        for page in over:
            self._check_over(who, page)
        for end in ended:
            promise = self.promises[end.meta.record]
            self.world.note(who, f"announces the end of {end.meta.record}")
            if now > promise.last_end + promise.seconds + SLACK_SECONDS:
                self.world.violation(f"P3 {who} announces {end.meta.record} after its time")

    def _check_over(self, who: str, page: Page) -> None:
        record, now = page.entry.meta.record, self.world.now
        promise = self.promises[record]
        since = promise.first_end if page.state == "ended" else page.alive_at
        self.world.note(who, f"removes {record}, which is over")
        if since is None or now - since < promise.seconds - SLACK_SECONDS:
            self.world.violation(f"P2 {who} removes {record} ({page.state}) before its time")

    def resumes(self, process: "Process", record: str, alive_at: float) -> None:
        """A process goes on with what nobody keeps any more. P3: but for one that nobody kept alive
        for its time, as that may have ended elsewhere, and been forgotten."""
        self.resumed += 1
        self.world.note(process.name, f"goes on with {record}")
        if self.world.now - alive_at > self.promises[record].seconds + SLACK_SECONDS:
            self.world.violation(f"P3 {process.name} revives {record} after its time")

    def given(self, process: "Process", core: ServerCore, order: Assign, began: float) -> None:
        """P3: what has ended does not run again, as long as one who knows of it is there: a member
        of this reign, or of the one before."""
        promise = self.promises.get(order.record)
        if promise is None or process.disturbed:
            return
        for other in self.world.processes:
            since = promise.on_disk.get(other.host.name)
            page = other.host.disk.pages.get(order.record)
            keeps = page is not None and page.whole and other.me.peer in page.keepers
            if since is None or not keeps or not other.awake or other.disturbed:
                continue
            earlier = [reign for reign in process.reigns if reign != core.state.reign]
            here = other.client.election.reign == core.state.reign
            elsewhere = other.client.election.joined and not here  # of whom no newcomer knows
            first = None if elsewhere else other.joined_at
            joined = other.reigns.get(earlier[-1]) if earlier else first
            before = joined is not None and joined < began and since < began
            now = self.world.now
            meanwhile = here and max(since, began) + process.settings.silence_seconds < now - 1
            if before or meanwhile:
                self.world.violation(
                    f"P3 {process.name} gives {order.kind} {order.start}..{order.stop} of "
                    f"{order.record}, whose end {other.name} has had on disk since {since:.4f}"
                )

    # -- what must hold in the end -----------------------------------------------------

    def pages(self, record: str) -> dict[str, Page]:
        """The hosts that have all of it, or its end, on disk."""
        found = {name: host.disk.pages.get(record) for name, host in self.world.hosts.items()}
        return {name: page for name, page in found.items() if page is not None and page.whole}

    def lost(self, record: str) -> bool:
        """Whether no disk has it: all that did were lost, or its time is over."""
        return self.has(record) and not self.pages(record)

    def owed(self, seconds: float) -> list[str]:
        """What must be there for whoever asks, for so long at least."""
        until = self.world.now + seconds
        found: list[str] = []
        for record, promise in self.promises.items():
            ends = (promise.first_end or until) + promise.seconds
            if promise.returned and not promise.cancelled and until < ends and self.pages(record):
                found.append(record)
        return found

    def too_few(self) -> list[str]:
        """What is on fewer disks than it should be, of hosts where somebody lives. What is on none
        of these, nobody could copy: its one keeper has left."""
        hosts = {p.host.name for p in self.world.processes if p.awake and not p.closing}
        found: list[str] = []
        for record in self.owed(0.0):
            keeping = self.promises[record].meta.keeping
            assert keeping is not None
            wanted = min(keeping.copies, len(hosts))
            have = [name for name in self.pages(record) if name in hosts]
            if 0 < len(have) < wanted:
                found.append(f"{record} is on the disks of {have}, not on {wanted}")
        return found

    def check_copies(self) -> None:
        """P2: however many keepers are gone, there are as many copies again."""
        for what in self.too_few():
            self.world.violation(f"P2 {what}")

    def left(self, process: "Process") -> list[str]:
        """What is still on the disk of a process, though its time is over."""
        pages = process.host.disk.pages.items()
        kept = [(record, page.state) for record, page in pages if page.whole]
        return [f"the disk of {process.name} still has {r} ({state})" for r, state in kept]
