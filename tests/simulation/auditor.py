"""Counts, apart from the grid, what was submitted and delivered; checks the promises.

It looks only at what crosses the border of the cores: submissions, deliveries, reigns, orders to
workers. Each check names the promise it guards.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grid.effects import Deliver, Send, ServerEffect, ShowProgress
from grid.messages import Assign, Failure, RecordMeta, Reign
from grid.server_core import ServerCore
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
    outcomes: list[str] = field(default_factory=list)
    owner_died: bool = False
    again: int = 0


class Auditor:
    """Knows every submission and every outcome."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cases: dict[str, Case] = {}
        self.executions: dict[tuple[str, str, int, int], int] = {}
        self._partitions: dict[str, int] = {}
        self._reigns: dict[str, Reign] = {}

    def partitions(self, record: str) -> int:
        return self._partitions[record]

    # -- what happens ------------------------------------------------------------------

    def submitted(self, process: "Process", txn: str, meta: RecordMeta, name: str) -> None:
        self.cases[txn] = Case(process, txn, meta)
        self._partitions[meta.record] = meta.partitions

    def owner_died(self, process: "Process") -> None:
        for case in self.cases.values():
            if case.process is process and not case.outcomes:
                case.owner_died = True

    def delivered(self, process: "Process", effect: Deliver, found: list[Content | None]) -> None:
        self.world.note(process.name, f"has the result of {effect.txn}")
        case = self.cases[effect.txn]
        self._outcome(case, "delivered")
        if effect.meta.shape == "everywhere":
            return
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

    def rejected(self, process: "Process", txn: str, failure: Failure) -> None:
        self.world.note(process.name, f"hears that {txn} failed: {failure.message}")
        self._outcome(self.cases[txn], failure.kind)

    def _outcome(self, case: Case, outcome: str) -> None:
        if case.outcomes:
            self.world.violation(f"P3 {case.txn}: {outcome} after {case.outcomes}")
        case.outcomes.append(outcome)

    def progress(self, process: "Process", effect: ShowProgress) -> None:
        self.cases[effect.txn].again = effect.again

    def executed(self, process: "Process", assign: Assign) -> None:
        key = (assign.record, assign.kind, assign.start, assign.stop)
        self.executions[key] = self.executions.get(key, 0) + 1

    def reigned(self, process: "Process", reign: Reign) -> None:
        if process.reigns and reign.term <= max(process.reigns):
            self.world.violation(f"P5 {process.name} reigns in term {reign.term} again")
        if reign.id in self._reigns:
            self.world.violation(f"P5 reign id {reign.id} used twice")
        process.reigns.append(reign.term)
        self._reigns[reign.id] = reign

    # -- what must hold at every step --------------------------------------------------

    def check_client(self, process: "Process") -> None:
        election = process.client.election
        if election.reign.term > election.seen.term:
            self.world.violation(f"P5 {process.name} follows a term it has not seen")

    def check_server(
        self, process: "Process", core: ServerCore, effects: list[ServerEffect]
    ) -> None:
        """P4: nothing is given that a member has announced as finished."""
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, Assign):
                self._check_order(process, core, effect.message)

    def _check_order(self, process: "Process", core: ServerCore, order: Assign) -> None:
        for member in core.state.roster:
            for output in member.held.get(order.record, ()):
                same = output.kind == order.kind and order.kind != "call"
                if same and output.start <= order.start and order.stop <= output.stop:
                    self.world.violation(
                        f"P4 {process.name} gives {order.kind} {order.start}..{order.stop} "
                        f"although {member.ref.name} holds {output.start}..{output.stop}"
                    )

    # -- what must hold in the end -----------------------------------------------------

    @property
    def all_resolved(self) -> bool:
        return all(case.outcomes or case.owner_died for case in self.cases.values())

    def check_end(self) -> None:
        """P2: everything submitted by a living owner has come to its end. P5: one server."""
        for case in self.cases.values():
            if not case.outcomes and not case.owner_died:
                self.world.violation(f"P2 {case.txn} of {case.process.name} never ended")
            elif case.outcomes and case.outcomes[0] not in ("delivered", "cancelled"):
                self.world.violation(f"P2 {case.txn} of {case.process.name}: {case.outcomes}")
        self.check_one_server()

    def check_one_server(self) -> None:
        living = [p for p in self.world.processes if p.alive]
        servers = [p.name for p in living if p.server is not None]
        followed = {str(p.client.election.reign) for p in living if p.client.election.joined}
        lost = [p.name for p in living if not p.client.election.joined]
        if len(servers) != 1 or len(followed) != 1 or lost:
            self.world.violation(f"P5 servers {servers}, reigns {followed}, without server {lost}")

    def check_dropped(self) -> None:
        """Nothing is kept for a transaction that has ended, unless for latecomers."""
        for process in self.world.processes:
            if process.alive:
                for record in process.client.holdings.records():
                    self.world.violation(f"{process.name} still holds outputs of {record}")
