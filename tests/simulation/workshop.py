"""What a simulated process does beside talking: records, tasks, results and folders.

The counterpart of workers, store and data plane. A segment is read where it is: in a folder of the
same host, or from a process that keeps it, if that process runs and its host can be reached.
"""

from typing import TYPE_CHECKING

from msgspec import structs

from grid import effects as fx
from grid import events as ev
from grid.messages import Assign, Failure, Held, Holding, Output, PeerRef, RecordMeta, Source
from tests.simulation.disk import Unkept
from tests.simulation.work import in_a_message, map_content, reduce_content, sizes_of
from tests.simulation.world import Content

if TYPE_CHECKING:
    from tests.simulation.process import Process


class Workshop:
    """The tasks and the folder of one process."""

    def __init__(self, process: "Process") -> None:
        self.process = process
        self.world = process.world
        self.auditor = process.auditor
        self.task_seconds = (0.01, 0.08)
        self.death_rate = 0.0
        self.late_rate = 0.0
        self.records: dict[str, RecordMeta] = {}
        """What this process submitted or adopted: others can have code and items from it."""
        self.known: set[str] = set()
        """The records whose code has come here."""
        self.running: dict[str, tuple[Assign, float]] = {}
        process.host.spools[process.me.peer] = {}

    @property
    def spool(self) -> dict[Output, Content]:
        return self.process.host.spools[self.process.me.peer]

    # -- records -----------------------------------------------------------------------

    def reachable(self, ref: PeerRef) -> "Process | None":
        """Data comes straight from its holder, or else through the server that both can reach."""
        for process in self.world.processes:
            if process.me.peer == ref.peer:
                near = self.world.reachable(process.host.name, self.process.host.name)
                near = near or self._relayed(process)
                return process if near and process.awake else None
        return None

    def _relayed(self, other: "Process") -> bool:
        links = (self.process.client.election.link, other.client.election.link)
        ends = [p.far(n or 0) for p, n in zip((self.process, other), links, strict=True)]
        server = ends[0]
        return (
            server is not None
            and server is ends[1]
            and server.awake
            and all(
                self.world.reachable(server.host.name, p.host.name) for p in (self.process, other)
            )
        )

    def adopt_record(self, effect: fx.AdoptRecord) -> None:
        def ask() -> None:
            owners = [self.reachable(ref) for ref in effect.owners]
            if any(owner and effect.meta.record in owner.shop.records for owner in owners):
                self.records[effect.meta.record] = effect.meta
                self.process.tell(ev.RecordAdopted(effect.txn, effect.meta))
            else:
                self.process.tell(ev.RecordNotAdopted(effect.txn, "no owner answers"))

        self.world.at(self.world.delay(), ask)

    # -- segments ----------------------------------------------------------------------

    def find(self, output: Output, ref: PeerRef) -> Content | None:
        """Read a segment where it is: here, in a folder of this host, or from its living holder."""
        for folder in self.process.host.spools.values():
            if output in folder:
                return folder[output]
        if (content := self.process.host.disk.found(output)) is not None:
            return content
        other = self.reachable(ref)
        if other is None:
            return None
        found = next((f[output] for f in other.host.spools.values() if output in f), None)
        return found if found is not None else other.host.disk.found(output)

    def _missing(self, sources: tuple[Source, ...]) -> tuple[Output, ...] | None:
        """None when all is there; else what is gone for good at living holders."""
        absent = [
            (source.holder, output)
            for source in sources
            for output in source.outputs
            if self.find(output, source.holder) is None
        ]
        if not absent:
            return None
        return tuple(output for holder, output in absent if self.reachable(holder))

    # -- tasks -------------------------------------------------------------------------

    def prepare(self, assign: Assign) -> None:
        def fetch() -> None:
            needed = assign.kind == "map" or assign.record not in self.known
            if needed and not any(self.reachable(ref) for ref in assign.owners):
                self.process.tell(ev.InputsFailed(assign.attempt, "no owner answers"))
                return
            self.known.add(assign.record)
            missing = self._missing(assign.sources)
            if missing is None:
                self.process.tell(ev.InputsReady(assign.attempt))
            else:
                self.process.tell(ev.InputsFailed(assign.attempt, "inputs", missing))

        self.world.at(self.world.delay(), fetch)

    def run(self, assign: Assign, output: Output) -> None:
        self.running[assign.attempt] = (assign, self.world.now)
        rng = self.world.rng
        seconds = rng.uniform(*self.task_seconds) * (assign.stop - assign.start)
        if rng.random() < self.late_rate:
            seconds += rng.uniform(0.5, 6.0)
        dies = rng.random() < self.death_rate
        content = None if dies else self._compute(assign)
        self.auditor.executed(self.process, assign)

        def end() -> None:
            if assign.attempt in self.running:
                del self.running[assign.attempt]
                self._ended(assign, output, content, seconds)

        self.world.at(seconds, lambda: self.process.receive(end))

    def _ended(
        self, assign: Assign, output: Output, content: Content | None, seconds: float
    ) -> None:
        if content is None:
            failure = Failure("died", "worker killed", item=assign.start)
            self.process.tell(ev.TaskBroke(assign.attempt, failure))
            return
        whole = assign.whole and output.counter % 2 == 1  # sometimes it fits into memory
        raised = self.auditor.flaws.failure(assign, whole=whole)
        if raised is not None:
            self.world.note(self.process.name, raised.message)
            self.process.tell(ev.TaskBroke(assign.attempt, raised))
            return
        if whole:
            partitions = self.auditor.partitions(assign.record)
            output = structs.replace(output, kind="reduce", start=0, stop=partitions)
            content = reduce_content([content], partitions, range(partitions))
        self.spool[output] = content
        self.auditor.sealed(self.process, output)
        holding = Holding(output, len(content))
        sizes = sizes_of(self.auditor.partitions(assign.record), content, output.kind)
        result = in_a_message(content) if whole or assign.kind == "finish" else b""
        self.process.tell(ev.TaskSealed(assign.attempt, holding, sizes, seconds, result))

    def _compute(self, assign: Assign) -> Content | None:
        if assign.kind == "map":
            return map_content(assign.start, assign.stop)
        if assign.kind == "call":
            return ((0, (1,)),)
        parts = [
            (output.start, self.find(output, source.holder))
            for source in assign.sources
            for output in source.outputs
        ]
        if any(content is None for _, content in parts):
            return None
        ordered = [c for _, c in sorted(parts, key=lambda part: part[0]) if c is not None]
        partitions = self.auditor.partitions(assign.record)
        keep = range(assign.start, assign.stop) if assign.kind == "reduce" else range(partitions)
        return reduce_content(ordered, partitions, keep)

    def forget(self, attempt: str) -> None:
        if self.running.pop(attempt, None):
            self.process.soon(ev.TaskBroke(attempt, Failure("died", "stopped")))

    # -- results -----------------------------------------------------------------------

    def fetch_result(self, effect: fx.FetchResult) -> None:
        def fetch() -> None:
            found = [(holding, self.find(holding.output, ref)) for holding, ref in effect.holdings]
            missing = tuple(holding.output for holding, content in found if content is None)
            if missing:
                gone = ev.ResultMissing(effect.txn, effect.record, missing, "gone")
                self.process.tell(gone)
                return
            for holding, content in found:
                assert content is not None
                self.spool[holding.output] = content
            kept = None
            if effect.keep is not None:
                results = {h.output: c for h, c in found if c is not None}
                try:
                    kept = self.process.cabinet.keep_end(effect.keep, results)
                except Unkept as error:
                    unkept = ev.ResultUnkept(effect.txn, effect.record, str(error))
                    self.process.tell(unkept)
                    return
            self.process.tell(ev.ResultFetched(effect.txn, effect.record, kept))

        self.world.at(self.world.delay(), lambda: self.process.receive(fetch))

    # -- folders -----------------------------------------------------------------------

    def folders(self) -> list[dict[Output, Content]]:
        """This process's own folder and those it has adopted."""
        host = self.process.host
        mine = [self.process.me.peer]
        mine += [peer for peer, keeper in host.adopted_by.items() if keeper is self.process]
        return [host.spools[peer] for peer in mine]

    def drop(self, effect: fx.DropOutputs) -> None:
        for folder in self.folders():
            for output in [o for o in folder if o.record == effect.record]:
                if not effect.kinds or output.kind in effect.kinds:
                    del folder[output]

    def drop_one(self, output: Output) -> None:
        for folder in self.folders():
            folder.pop(output, None)

    def adopt_estates(self) -> None:
        host = self.process.host
        told: list[ev.EstateAdopted] = []
        complete: list[ev.EstateAdopted] = []
        for dead in host.processes:
            keeper = host.adopted_by.get(dead.me.peer)
            if dead.alive or (keeper and keeper.alive):
                continue
            host.adopted_by[dead.me.peer] = self.process
            by_record: dict[str, list[Holding]] = {}
            for output, content in host.spools[dead.me.peer].items():
                by_record.setdefault(output.record, []).append(Holding(output, len(content)))
            held = tuple(Held(record, tuple(hs)) for record, hs in by_record.items())
            if held:
                told.append(ev.EstateAdopted("", held))
            complete.append(ev.EstateAdopted(dead.me.peer, ()))
        seconds = self.world.delay()
        for event in (*told, *complete):
            self.process.soon(event, seconds)
