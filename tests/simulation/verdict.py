"""What must hold when all is healed and over: every promise kept, and nothing left behind."""

from typing import TYPE_CHECKING

from tests.simulation.auditor import Auditor, Case

if TYPE_CHECKING:
    from tests.simulation.process import Process


class Verdict:
    """The auditor's questions at the end."""

    def __init__(self, auditor: Auditor) -> None:
        self.auditor = auditor
        self.world = auditor.world
        self._ended_at = 0.0

    @property
    def living(self) -> list["Process"]:
        return [process for process in self.world.processes if process.awake]

    @property
    def _open(self) -> list[Case]:
        """What is owed: who is frozen for ever is owed nothing."""
        lost = self.auditor.detached.lost
        cases = self.auditor.cases.values()
        return [c for c in cases if c.open and c.process.awake and not lost(c.wanted)]

    @property
    def all_resolved(self) -> bool:
        return not self._open

    @property
    def one_server(self) -> bool:
        return not self._who_serves()

    @property
    def clean(self) -> bool:
        return next(iter(self._left()), None) is None

    def check_end(self) -> None:
        """P2: what a living owner submitted has ended. P4: deaths alone repeat nothing, nor do
        peers that leave well. P5."""
        self._ended_at = self.world.now
        for case in self._open:
            self.world.violation(f"P2 {case.txn} of {case.process.name} never ended")
        for case in self.auditor.cases.values():
            if case.again and self.auditor.calm:
                again = f"{case.again} finished tasks ran again for {case.txn}"
                self.world.violation(f"P4 {again}, though nothing but deaths befell the grid")
            elif case.again and self.auditor.gentle:
                again = f"{case.again} finished tasks ran again for {case.txn}"
                self.world.violation(f"P4 {again}, though all who went left well")
        divided = self._who_serves()
        if divided:
            self.world.violation(f"P5 {divided}")

    def retained(self, seconds: float) -> list[str]:
        """The names whose results the server keeps whole, for so long at least."""
        until = self.world.now + seconds
        servers = [process.server for process in self.living if process.server is not None]
        return [
            txn.name
            for server in servers[:1]
            for txn in server.state.registry
            if txn.name and (txn.retained_until or 0.0) > until and txn.complete
        ]

    def check_asked(self) -> None:
        """P1: any living peer fetches what is retained, or kept on disk; or hears why it failed.
        What was cancelled before its submission returned may be asked for as late."""
        for case in self.auditor.cases.values():
            asked = case.asked and case.submitted_at >= self._ended_at and case.process.awake
            asked = asked and not case.withdrawn
            right = [[outcome] for outcome in self.auditor.flaws.ends(case.wanted)]
            if asked and case.outcomes not in right:
                self.world.violation(f"P1 {case.txn} of {case.process.name}: {case.outcomes}")

    def _who_serves(self) -> str:
        """Empty, or how the grid is divided."""
        servers = [p.name for p in self.living if p.server is not None]
        followed = {str(p.client.election.reign): None for p in self.living}
        lost = [p.name for p in self.living if not p.client.election.joined]
        if len(servers) == 1 and len(followed) == 1 and not lost:
            return ""
        return f"servers {servers}, reigns {list(followed)}, without server {lost}"

    def check_left(self) -> None:
        """P7: nothing is kept for a transaction that has ended and was retained long enough."""
        for what in self._left():
            self.world.violation(f"P7 {what}")

    def _left(self) -> list[str]:
        return [what for process in self.living for what in self._left_at(process)]

    def _left_at(self, process: "Process") -> list[str]:
        client, name = process.client, process.name
        left = [f"{name} still holds outputs of {r}" for r in client.holdings.records()]
        left += [f"{name} still works on {a}" for a in client.attempts.all()]
        left += [f"{name} still owns {t.txn} ({t.state})" for t in client.ownership._owned.values()]
        for folder in process.shop.folders():
            left += [f"{name} still stores {output}" for output in folder]
        left += self.auditor.detached.left(process)
        return left + self._left_at_server(process)

    @staticmethod
    def _left_at_server(process: "Process") -> list[str]:
        if process.server is None:
            return []
        core, name = process.server, f"the server of {process.name}"
        left = [f"{name} still knows {txn.meta.record}" for txn in core.state.registry]
        left += [f"{name} postpones {message}" for _, message in core.submissions._undecided]
        for member in core.state.roster:
            who = member.ref.name
            left += [f"{name} thinks that {who} runs {attempt}" for attempt in member.assigned]
            left += [f"{name} thinks that {who} ran {attempt}" for attempt in member.unclaimed]
            left += [
                f"{name} thinks that {who} holds {r}" for r, outs in member.held.items() if outs
            ]
            if member.held_bytes:
                left.append(f"{name} counts {member.held_bytes} bytes at {who}")
        return left
