"""Counts, apart from the grid, what was submitted and delivered; checks the promises at every step.

It looks only at what crosses the border of the cores: submissions, deliveries, reigns, orders to
workers, sealed segments. Each check names the promise it guards. What must hold when all is over
is in ``verdict``.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grid.effects import CloseLink, Deliver, Send, ServerEffect, ShowProgress
from grid.messages import Assign, Failure, Kind, Output, Progress, RecordMeta, Reign
from grid.ownership import NOT_KNOWN
from grid.run_queue import runs
from grid.server_core import ServerCore
from grid.submissions import CANCELLED
from tests.simulation.flaws import Flaws
from tests.simulation.ledger import Ledger
from tests.simulation.work import oracle
from tests.simulation.world import Content, World

if TYPE_CHECKING:
    from tests.simulation.process import Process


@dataclass
class Case:
    """One submission of one owner process."""

    process: "Process"
    txn: str
    meta: RecordMeta
    name: str
    outcomes: list[str] = field(default_factory=list)
    withdrawn: bool = False
    owner_died: bool = False
    submitted_at: float = 0.0
    record: str = ""
    """The record whose result was delivered: with a name, perhaps another owner's."""
    again: int = 0
    asked: bool = False
    """Nothing was submitted: only the finished result of a name was asked for."""
    wanted: str = ""
    """The name, or the detached record, that was asked for."""
    ended_for_all: bool = False
    """Its owner cancelled it for everyone who has this name."""
    overtakes: bool = False
    """Such a cancel of its name may still be on its way to the server, on a slower link."""

    @property
    def open(self) -> bool:
        return not self.outcomes and not self.owner_died


@dataclass(frozen=True)
class Sealed:
    """A segment that a process made, and when."""

    process: "Process"
    output: Output
    at: float


class Auditor:
    """Knows every submission, every segment and every outcome."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cases: dict[str, Case] = {}
        self.calm = True
        """Whether nothing but deaths befell one host: then no output was lost, for its neighbours
        have adopted it."""
        self.detached = Ledger(world)
        self.flaws = Flaws()
        self.gentle = True
        """Whether nobody went but by leaving well: then no output was lost, on any host."""
        self._metas: dict[str, RecordMeta] = {}
        self._sealed: dict[tuple[str, Kind], list[Sealed]] = {}
        self._reigns: dict[str, Reign] = {}
        self._began: dict[int, float] = {}
        self._seen: dict[str, Reign] = {}
        self._stepped: dict[int, float] = {}

    def partitions(self, record: str) -> int:
        return self._metas[record].partitions

    # -- what happens ------------------------------------------------------------------

    def submitted(self, process: "Process", txn: str, meta: RecordMeta, name: str) -> None:
        case = Case(process, txn, meta, name, submitted_at=self.world.now)
        case.overtakes = any(c.name == name and c.ended_for_all for c in self.cases.values())
        self.cases[txn] = case
        self._metas[meta.record] = meta

    def withdrawn(self, txn: str, *, everyone: bool) -> None:
        """The user withdrew; with ``everyone``, whoever shares the work may hear of it."""
        case = self.cases[txn]
        case.ended_for_all |= everyone and bool(case.name)
        for other in self.cases.values():
            if other is case or (everyone and case.name and other.name == case.name):
                other.withdrawn = True

    def knows(self, meta: RecordMeta) -> None:
        """A detached record: it is its keepers' to see through."""
        self._metas[meta.record] = meta
        self.detached.knows(meta)

    def asked(self, process: "Process", txn: str, wanted: str) -> None:
        case = Case(process, txn, NOT_KNOWN, "", submitted_at=self.world.now, asked=True)
        case.wanted = wanted
        case.withdrawn = self.detached.cancelled(wanted)
        self.cases[txn] = case

    def ended(self, record: str) -> None:
        """Somebody ended a record for everyone: whoever shares it may hear of it."""
        names = [case.name for case in self.cases.values() if case.meta.record == record]
        for case in self.cases.values():
            same = record in (case.meta.record, case.wanted)
            if same or (case.name and case.name in names):
                case.withdrawn = True
        self.detached.cancel(record)

    @property
    def jobs(self) -> int:
        """How many submissions there were."""
        return sum(not case.asked for case in self.cases.values())

    def owner_died(self, process: "Process") -> None:
        for case in self.cases.values():
            if case.process is process and not case.outcomes:
                case.owner_died = True

    def delivered(self, process: "Process", effect: Deliver, found: list[Content | None]) -> None:
        self.world.note(process.name, f"has the result of {effect.txn}")
        case = self.cases[effect.txn]
        self._outcome(case, "delivered")
        case.record = effect.meta.record
        self.detached.told(process.name, effect.meta.record, "delivered")
        self._check_no_flaw(case, effect)
        self._check_one_record(case)
        if effect.meta.shape == "everywhere":
            self._check_everywhere(case, effect)
            return
        outputs = [holding.output for holding, _ in effect.holdings]
        reduced = effect.meta.partitions if effect.meta.items else 0
        extent = 1 if effect.meta.finish else reduced
        self._check_tiling(f"result of {effect.txn}", outputs, extent)
        result: dict[int, tuple[int, ...]] = {}
        for content in found:
            if content is None:
                self.world.violation(f"P3 {effect.txn}: a delivered segment is not there")
                return
            for key, values in content:
                if key in result:
                    self.world.violation(f"P3 {effect.txn}: key {key} twice")
                result[key] = values
        if result != oracle(effect.meta.items):
            self.world.violation(f"P3 {effect.txn}: {result} is not the sequential answer")

    def _check_no_flaw(self, case: Case, effect: Deliver) -> None:
        """P3: what raises for good has no result; unless it is of a call that nobody ran."""
        nobody = effect.meta.shape == "everywhere" and not effect.holdings
        if "delivered" not in self.flaws.ends(effect.meta.record) and not nobody:
            self.world.violation(f"P3 {case.txn}: {effect.meta.record} raises, and has a result")

    def _check_everywhere(self, case: Case, effect: Deliver) -> None:
        """Who was a member before, and has not left, has run it; unless the server is a newcomer
        that cannot know yet of a grid before it."""
        grace = case.process.settings.silence_seconds
        servers = [p.joined_at for p in self.world.processes if p.server is not None]
        if any(joined is None or joined + grace > case.submitted_at for joined in servers):
            return
        ran = {holding.output.producer for holding, _ in effect.holdings}
        for process in self.world.processes:
            member = process.joined_at is not None and process.joined_at < case.submitted_at
            calm = self.calm and not process.closing
            if member and calm and process.awake and process.me.peer not in ran:
                self.world.violation(f"P2 {case.txn} did not run on {process.name}")

    def _check_one_record(self, case: Case) -> None:
        """Owners of one name share one record, while the first of them lives and waits: it is not
        served by another one than those who came later. (It may be late to hear which it is.)"""
        if not self.calm or not case.name or case.withdrawn:
            return
        for other in self.cases.values():
            later = other.name == case.name and case.submitted_at + 1 < other.submitted_at
            if later and other.outcomes == ["delivered"] and other.record != case.record:
                self.world.violation(
                    f"P4 {other.txn} ran as {other.record} besides {case.txn} of the same name"
                )

    def rejected(self, process: "Process", txn: str, failure: Failure) -> None:
        self.world.note(process.name, f"hears that {txn} failed: {failure.message}")
        case = self.cases[txn]
        self._outcome(case, failure.kind)
        if failure.kind == "raised":
            self._check_raised(case, failure.function)
            return
        if failure.message == CANCELLED:  # and not because the user, or the peer, withdrew
            self.detached.told(process.name, case.wanted, "cancelled")
        if case.asked and failure.kind != "cancelled":
            return  # there is no such result, or not yet, or not any more
        known = case.withdrawn or case.overtakes or process.closing
        if failure.kind != "cancelled" or not known:
            self.world.violation(f"P2 {txn} of {process.name}: {failure.message}")

    def _check_raised(self, case: Case, record: str) -> None:
        """P3: only who wanted this record hears that its code raised, and only if it did so more
        often than it may. P2: whatever is retried often enough has a result."""
        self.detached.told(case.process.name, record, "raised")
        names = [c.name for c in self.cases.values() if c.meta.record == record and c.name]
        mine = record in (case.meta.record, case.wanted)
        if not mine and case.name not in names and case.wanted not in names:
            self.world.violation(f"P3 {case.txn} hears that {record} raised, another's work")
        if "raised" not in self.flaws.ends(record) or not self.flaws.may_have_failed(record):
            self.world.violation(f"P2 {case.txn}: {record} is given up, though it may be retried")

    def _outcome(self, case: Case, outcome: str) -> None:
        if case.outcomes:
            self.world.violation(f"P3 {case.txn}: {outcome} after {case.outcomes}")
        case.outcomes.append(outcome)

    def progress(self, process: "Process", effect: ShowProgress) -> None:
        if effect.txn in self.cases:  # but for keepers, of whose work no user sees anything
            self.cases[effect.txn].again = effect.again

    def executed(self, process: "Process", assign: Assign) -> None:
        """P3: a reduce or finish reads inputs that tile the whole exactly."""
        if assign.kind in ("reduce", "finish"):
            meta = self._metas[assign.record]
            outputs = [output for source in assign.sources for output in source.outputs]
            reduces = meta.partitions if meta.items else 0
            extent = meta.items if assign.kind == "reduce" else reduces
            what = f"inputs of {assign.kind} {assign.start}..{assign.stop} of {assign.record}"
            self._check_tiling(what, outputs, extent)

    def sealed(self, process: "Process", output: Output) -> None:
        made = self._sealed.setdefault((output.record, output.kind), [])
        made.append(Sealed(process, output, self.world.now))

    def reigned(self, process: "Process", reign: Reign) -> None:
        known = self._seen.get(process.me.peer)
        if known is not None and reign.term <= known.term:
            self.world.violation(f"P5 {process.name} reigns as {reign}, having seen {known}")
        if reign.id in self._reigns:
            self.world.violation(f"P5 reign id {reign.id} used twice")
        self._reigns[reign.id] = reign

    # -- what must hold at every step --------------------------------------------------

    def _check_tiling(self, what: str, outputs: list[Output], extent: int) -> None:
        reached = 0
        for output in sorted(outputs, key=lambda output: output.start):
            if output.start != reached:
                self.world.violation(f"P3 {what}: {output.start} follows {reached}")
            reached = output.stop
        if reached != extent:
            self.world.violation(f"P3 {what}: ends at {reached}, not at {extent}")

    def check_client(self, process: "Process") -> None:
        """P5: terms only grow in the eyes of each process."""
        election = process.client.election
        known = self._seen.get(process.me.peer)
        if election.reign.term > election.seen.term:
            self.world.violation(f"P5 {process.name} follows a term it has not seen")
        if known is not None and election.seen < known:
            self.world.violation(f"P5 {process.name} has forgotten {known} for {election.seen}")
        self._seen[process.me.peer] = election.seen
        if election.joined:
            process.joined_at = process.joined_at or self.world.now
            process.reigns.setdefault(election.reign, self.world.now)

    def check_server(
        self, process: "Process", core: ServerCore, effects: list[ServerEffect]
    ) -> None:
        """P2: nobody is passed over. P4: nothing is given that is finished and kept. P5: no one is
        blamed for one's pause."""
        self._check_queue(process, core)
        paused = self.world.now - self._stepped.get(id(core), self.world.now)
        self._stepped[id(core)] = self.world.now
        closed = [effect.link for effect in effects if isinstance(effect, CloseLink)]
        blamed = [link for link in closed if (far := process.far(link)) and not far.disturbed]
        if paused > core.settings.silence_seconds and blamed:
            self.world.violation(f"P5 {process.name} paused for {paused:.1f} s and drops {blamed}")
        began = self._began.setdefault(id(core), self.world.now)
        told: set[tuple[str, str, int, int]] = set()
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, Progress):
                news = effect.message
                told |= {(news.record, e.kind, e.start, e.stop) for e in news.entries}
            if isinstance(effect, Send) and isinstance(effect.message, Assign):
                order = effect.message
                if (order.record, order.kind, order.start, order.stop) not in told:
                    self.world.violation(f"P4 {process.name} gives {_what(order)} before the news")
                self._check_quorum(process, core, effect.message)
                self.detached.given(process, core, effect.message, began)
                self._check_announced(process, core, effect.message)
                if not process.disturbed:
                    self._check_kept(process, effect.message, began)
                    self._check_under_way(process, effect.message, began)

    def _check_queue(self, process: "Process", core: ServerCore) -> None:
        queued = list(core.state.registry.queue.walk())
        runnable = [txn for txn in core.state.registry if runs(txn)]
        runnable.sort(key=lambda txn: (-txn.meta.priority, txn.active, txn.number))
        if queued != runnable:
            self.world.violation(f"P2 {process.name} has not all that runs in its queue, or not so")

    def _check_quorum(self, process: "Process", core: ServerCore, order: Assign) -> None:
        """P5, for those who ask for it: a half without a quorum works at nothing."""
        able = sum(member.serves for member in core.state.roster)
        if able < core.settings.quorum:
            self.world.violation(f"P5 {process.name} gives {_what(order)} as one of only {able}")

    def _check_announced(self, process: "Process", core: ServerCore, order: Assign) -> None:
        for member in core.state.roster:
            for output in member.held.get(order.record, ()):
                if _covers(output, order):
                    self.world.violation(
                        f"P4 {process.name} gives {_what(order)} "
                        f"although {member.ref.name} holds {output.start}..{output.stop}"
                    )

    def _check_under_way(self, process: "Process", order: Assign, began: float) -> None:
        """What a process that is as it was has in hand since before this reign is left to it."""
        if self._metas[order.record].speculate or self._owners_disturbed(order.record):
            return
        for other in self.world.processes:
            if not other.awake or other.disturbed or other is process:
                continue
            for running, since in other.shop.running.values():
                same = (running.record, running.kind) == (order.record, order.kind)
                inside = running.start <= order.start and order.stop <= running.stop
                if same and inside and since < began and order.kind != "call":
                    self.world.violation(
                        f"P4 {process.name} gives {_what(order)} which "
                        f"{other.name} has been running since {since:.4f}"
                    )

    def _owners_disturbed(self, record: str) -> bool:
        """Whether the ledgers of a record may have missed something, or their owners died: those
        who revive a detached one have none."""
        if self.detached.has(record):
            return True
        return any(
            case.process.disturbed for case in self.cases.values() if case.meta.record == record
        )

    def _check_kept(self, process: "Process", order: Assign, began: float) -> None:
        """What was sealed before this reign by a process that is as it was is never given again,
        if the owners' ledgers could say so."""
        if self._owners_disturbed(order.record):
            return
        for sealed in self._sealed.get((order.record, order.kind), ()):
            maker = sealed.process
            if sealed.at >= began or not maker.awake or maker.disturbed:
                continue
            if _covers(sealed.output, order) and sealed.output in maker.shop.spool:
                self.world.violation(
                    f"P4 {process.name} gives {_what(order)} which "
                    f"{maker.name} had sealed at {sealed.at:.4f}, before this reign"
                )


def _what(order: Assign) -> str:
    return f"{order.kind} {order.start}..{order.stop} of {order.record}"


def _covers(output: Output, order: Assign) -> bool:
    same = output.kind == order.kind and order.kind != "call"
    return same and output.start <= order.start and order.stop <= output.stop
