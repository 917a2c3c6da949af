"""A client's fetches: results for its own transactions, and what it is asked to keep for others.

A server has two reasons to ask: results that latecomers may want (``Retain``), and outputs that a
leaving peer has alone (``TakeOver``). What was fetched becomes this peer's own holding and is
announced, so that a server knows of it and a later one hears of it on joining. What could not be
had is said too: somebody else may be able to. Methods return effects, and messages to the server.
"""

from collections.abc import Iterable

from grid.effects import ClientEffect, DropOutput, FetchResult
from grid.events import ResultFetched, ResultMissing, ResultUnkept
from grid.holdings import Holdings
from grid.messages import (
    Announce,
    Failed,
    Failure,
    FromClient,
    Held,
    Holding,
    NotTaken,
    PeerRef,
    Remembered,
    Retain,
    TakeOver,
)
from grid.ownership import Ownership

RETAINED = "retained:"
"""Prefix of the fetches of results for latecomers."""

TAKEN = "taken:"
"""Prefix of the fetches of what a leaving peer has alone."""

Outcome = tuple[list[ClientEffect], list[FromClient]]


class Fetches:
    """The fetches under way. ``name`` is what people read of this peer."""

    def __init__(self, name: str, ownership: Ownership, holdings: Holdings) -> None:
        self._name = name
        self._ownership = ownership
        self._holdings = holdings
        self._under_way: dict[str, tuple[tuple[Holding, PeerRef], ...]] = {}
        self._retained: dict[str, Remembered] = {}
        self._count = 0

    # -- beginning ---------------------------------------------------------------------

    def note(self, effects: list[ClientEffect]) -> list[ClientEffect]:
        """Remember what is fetched by these effects; return them."""
        for effect in effects:
            if isinstance(effect, FetchResult):
                self._under_way[effect.txn] = effect.holdings
        return effects

    def retain(self, message: Retain, now: float) -> Outcome:
        """Keep a result for latecomers; one who is asked as the second copy fetches it first. The
        end of a detached transaction is kept, and announced, once it is on disk."""
        record = message.remembered.meta.record
        if message.remembered.meta.keeping is not None:
            fetch = FetchResult(f"{RETAINED}{record}", record, message.sources, message.remembered)
            return self.note([fetch]), []
        absent = self._absent(message.sources)
        effects: list[ClientEffect] = []
        if absent:
            self._retained[record] = message.remembered
            effects = self.note([FetchResult(f"{RETAINED}{record}", record, absent)])
        self._holdings.remember(message.remembered, now)
        return effects, []

    def take_over(self, message: TakeOver) -> Outcome:
        """Fetch what a leaving peer has alone; what is here already is said at once."""
        absent = self._absent(message.sources)
        here = tuple(held for held, _ in message.sources if held.output in self._holdings)
        said: list[FromClient] = [Announce((Held(message.record, here),))] if here else []
        if not absent:
            return [], said
        self._count += 1
        txn = f"{TAKEN}{self._count}:{message.record}"
        return self.note([FetchResult(txn, message.record, absent)]), said

    def _absent(
        self, sources: tuple[tuple[Holding, PeerRef], ...]
    ) -> tuple[tuple[Holding, PeerRef], ...]:
        return tuple(pair for pair in sources if pair[0].output not in self._holdings)

    # -- ending ------------------------------------------------------------------------

    def fetched(self, event: ResultFetched, now: float) -> Outcome:
        """What was fetched becomes a holding here too: the second copy that others may need."""
        sources = self._under_way.pop(event.txn, ())
        mine = tuple(holding for holding, _ in sources)
        effects, messages = self._ownership.fetched(event.txn, sources)
        retained = (
            self._retained.pop(event.record, None) if event.txn.startswith(RETAINED) else None
        )
        asked = retained is not None or event.txn.startswith(TAKEN)
        if not (effects or asked or event.kept is not None):
            return [*self._drop(mine), *effects], messages
        for number, holding in enumerate(mine):
            self._holdings.add(holding, event.sizes if number == 0 else (), now)
        if (remembered := event.kept or retained) is not None:
            self._holdings.remember(remembered, now)
        announced = Announce((Held(event.record, mine, event.sizes, event.kept),))
        return effects, [announced, *messages]

    def missing(self, event: ResultMissing, now: float) -> Outcome:
        """Some is gone: the owner's server has it run again, who was asked to keep it says so."""
        sources = self._under_way.pop(event.txn, ())
        asked = {holding.output: ref.peer for holding, ref in sources}
        missing = tuple((output, asked[output]) for output in event.missing if output in asked)
        effects, messages = self._ownership.missing(event.txn, missing, event.reason, now)
        if not self._ownership.awaits_run(event.txn):
            self._retained.pop(event.record, None)
            effects = [*self._drop(holding for holding, _ in sources), *effects]
        return effects, [*messages, *self._not_taken(event.txn, event.record, sources)]

    def unkept(self, event: ResultUnkept, now: float) -> Outcome:
        """No room here for a result: its owner is told; one kept for others is given up."""
        sources = self._under_way.pop(event.txn, ())
        dropped = self._drop(holding for holding, _ in sources)
        self._retained.pop(event.record, None)
        if refused := self._not_taken(event.txn, event.record, sources):
            return dropped, refused
        if withdrawal := self._ownership.unkept(event.txn, now):
            return dropped, withdrawal
        failure = Failure("space", event.reason, peer=self._name)
        effects, messages = self._ownership.failed(Failed(event.txn, event.record, failure))
        return [*dropped, *effects], messages

    @staticmethod
    def _not_taken(
        txn: str, record: str, sources: tuple[tuple[Holding, PeerRef], ...]
    ) -> list[FromClient]:
        if not txn.startswith((RETAINED, TAKEN)):
            return []
        return [NotTaken(record, tuple(holding.output for holding, _ in sources))]

    def _drop(self, fetched: Iterable[Holding]) -> list[ClientEffect]:
        """Nobody waits for this any more: remove what came of it."""
        outputs = [holding.output for holding in fetched]
        return [DropOutput(output) for output in outputs if output not in self._holdings]
