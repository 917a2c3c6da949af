"""What a simulated process does with its host's journal, as ``peers/detached.py`` and
``peers/handing.py`` do: slowly, one write after another, and it may die between any two."""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from grid import effects as fx
from grid import events as ev
from grid import keeping
from grid.keeping import Answer, Entry, HandedOver, Keeper, Part
from grid.messages import NOTHING_RIDING, Output, PeerRef, RecordMeta, Remembered
from tests.simulation.disk import Disk, Unkept
from tests.simulation.world import Content

if TYPE_CHECKING:
    from tests.simulation.process import Process

CHUNK = 32
"""Items given at once."""

HEAD = -1
"""Before the first item."""

UNHEARD_SECONDS = 2.0
"""After so long one who does not answer is taken to have failed."""


class Cabinet:
    """What one process keeps of detached transactions, or gives others to keep."""

    def __init__(self, process: "Process", patience: float) -> None:
        self.process = process
        self.world = process.world
        self.ledger = process.auditor.detached
        self.keeper = Keeper(patience)

    @property
    def disk(self) -> Disk:
        return self.process.host.disk

    @property
    def _peer(self) -> str:
        return self.process.me.peer

    def _clock(self) -> float:
        return self.world.now + self.disk.fast

    def _tell(self, events: list[ev.ClientEvent]) -> None:
        for event in events:
            if isinstance(event, ev.SubmitRequested):
                self.process.shop.records[event.meta.record] = event.meta
            self.process.tell(event)

    def _took(self, found: Entry | Remembered) -> None:
        self._tell(self.keeper.took(found, self._clock()))

    # -- submitting ----------------------------------------------------------------------

    def submit(self, meta: RecordMeta, then: Callable[[bool], None]) -> None:
        """Give a transaction to its keepers; ``then`` is told whether its id is returned."""
        process = self.process
        election = process.client.election
        others = [successor.ref for successor in election.successors]
        server = process.client._server
        if server is not None:
            others.append(server)
        refs = keeping.choose(process.me, others, process.settings.copies)
        counts = [min(CHUNK, meta.items - first) for first in range(0, meta.items, CHUNK)]
        self._go_on(meta, keeping.hand_over(refs, iter(counts)), None, then)

    def _go_on(
        self,
        meta: RecordMeta,
        flow: Generator[Part, Answer, HandedOver],
        answer: Answer | None,
        then: Callable[[bool], None],
    ) -> None:
        try:
            part = next(flow) if answer is None else flow.send(answer)
        except StopIteration as over:
            done: HandedOver = over.value
            if not done.kept and done.uncertain:
                self.process.end(f"e{meta.record}", meta.record)
            then(bool(done.kept))
            return
        self._give(meta, part, lambda answer: self._go_on(meta, flow, answer, then))

    def _give(self, meta: RecordMeta, part: Part, then: Callable[[Answer], None]) -> None:
        """Say a part to a keeper. The answer comes, or the way is found to be closed."""
        answered: list[Answer] = []

        def answer(said: Answer) -> None:
            if not answered:
                answered.append(said)
                then(said)

        def arrive() -> None:
            keeper = self.process.shop.reachable(part.keeper)
            said: Answer = "failed" if keeper is None else keeper.cabinet.keep(meta, part)
            self.world.at(self.world.delay(), lambda: self._hear(part.keeper, said, answer))

        self.world.at(self.world.delay(), arrive)

    def _hear(self, ref: PeerRef, said: Answer, answer: Callable[[Answer], None]) -> None:
        """An answer comes back, if its sender lived to send it and the way is open."""
        heard = said != "failed" and self.process.shop.reachable(ref) is not None
        seconds = 0.0 if heard else UNHEARD_SECONDS
        said = said if heard else "failed"
        self.world.at(seconds, lambda: self.process.receive(lambda: answer(said)))

    # -- keeping -------------------------------------------------------------------------

    def keep(self, meta: RecordMeta, part: Part) -> Answer:
        """Put a part on disk."""
        record, disk = meta.record, self.disk
        try:
            match part.part:
                case "head":
                    whole = disk.begin(Entry(meta), self._peer, self.world.now)
                    return "whole" if whole else "done"
                case "items":
                    disk.add_items(record, part.first, part.count)
                case "whole":
                    self._took(disk.complete(record, self._peer, self.world.now))
                case "withdrawn":
                    disk.discard(record, self._peer)
        except Unkept:
            return "failed"
        return "done"

    def keep_too(self, effect: fx.AdoptRecord) -> None:
        """Copy what another keeper has, a piece at a time; it may go, or end, meanwhile."""
        self._later(lambda: self._copy(effect, effect.owners, HEAD))

    def _later(self, action: Callable[[], None]) -> None:
        self.world.at(self.world.delay(), lambda: self.process.receive(action))

    def _copy(self, effect: fx.AdoptRecord, keepers: tuple[PeerRef, ...], first: int) -> None:
        """Copy one more piece from the first of these keepers, or begin anew with the next."""
        try:
            first = self._copied(effect.meta, keepers[0], first)
        except Unkept:
            keepers, first = keepers[1:], HEAD
        if not keepers:
            self.process.tell(ev.RecordNotAdopted(effect.txn, "nobody could give it"))
        elif first < effect.meta.items:
            self._later(lambda: self._copy(effect, keepers, first))
        else:
            self.world.note(self.process.name, f"keeps a copy of {effect.meta.record}")

    def _copied(self, meta: RecordMeta, keeper: PeerRef, first: int) -> int:
        """Copy the head, or the chunk that begins at ``first``; return where the next begins."""
        source = self.process.shop.reachable(keeper)
        page = source.host.disk.pages.get(meta.record) if source is not None else None
        if page is None or page.torn:
            raise Unkept("it is not there")
        if first == HEAD:
            whole = self.disk.begin(page.entry, self._peer, self.world.now)
            first = meta.items if whole else 0
        elif first in page.items:
            self.disk.add_items(meta.record, first, page.items[first])
            first += page.items[first]
        else:
            raise Unkept("there is no such chunk any more")
        if first >= meta.items:
            self._took(self.disk.complete(meta.record, self._peer, self.world.now))
        return first

    def keep_end(self, end: Remembered, results: dict[Output, Content]) -> Remembered:
        """Put an end on disk. Raises ``Unkept``."""
        kept = self.disk.finish(end, results, self._peer, self.world.now)
        self.keeper.lost(end.meta.record)
        self.ledger.ended(self.process, kept)
        return kept

    def look(self) -> None:
        """Look after the journal, after the estates that are being announced."""
        if self.disk.pages:
            seconds = self.world.latency[1] * 2
            self.world.at(seconds, lambda: self.process.receive(self._look))

    def _look(self) -> None:
        living = [p.me.peer for p in self.process.host.processes if p.alive]
        alive_at = {record: page.alive_at for record, page in self.disk.pages.items()}
        opened, ended, over, torn = self.disk.look(self._peer, living, self.world.now)
        self.ledger.looked(self.process, ended, over, torn)
        for entry in opened:
            self.ledger.resumes(self.process, entry.meta.record, alive_at[entry.meta.record])
        owned = [(entry, NOTHING_RIDING) for entry in opened]
        self._tell(self.keeper.revived(owned, ended, self._clock()))
