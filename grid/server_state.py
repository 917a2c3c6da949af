"""What the parts of a server core share: the reign, the members, the transactions, the outbox.

Messages are put in an outbox during a step. At its end the ledgers' news goes out before the
orders it tells of: an owner must never know less than a worker does (P4).
"""

from collections.abc import Iterator

from msgspec import structs

from grid.chronicle import Chronicle
from grid.effects import Send, ServerEffect
from grid.messages import (
    NO_REIGN,
    Accepted,
    Assign,
    CancelTask,
    Failover,
    FromServer,
    Held,
    Holding,
    PeerRef,
    Progress,
    Reign,
)
from grid.plan import Needless
from grid.registry import Registry, Transaction
from grid.roster import Member, Roster
from grid.settings import Settings

ENTRIES_MAX = 10_000
"""Ledger entries in one message: below a megabyte or two."""


class ServerState:
    """One server's whole knowledge during its reign."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.reign: Reign = NO_REIGN
        self.me: PeerRef | None = None
        self.roster = Roster()
        self.registry = Registry(settings.task_seconds)
        self.buried: dict[str, None] = {}
        """Dead peers whose whole estate has been announced by the one who adopted it."""
        self.settled = True
        """Whether everyone who was a member before this reign had the time to report."""
        self.failovers: tuple[Failover, ...] = ()
        """The latest, of each kind; the last one may be why this server reigns."""
        self.lacking = 0
        """So many members more, and there is a quorum: until then nothing is given or ended."""
        self.now = 0.0
        """When this step is taken."""
        self.chronicle = Chronicle()
        self.watched_until = 0.0
        """Until then somebody probably watches the grid."""
        self._effects: list[ServerEffect] = []
        self._orders: list[tuple[Member, Assign]] = []
        self._accepted: list[tuple[Member, Accepted]] = []

    # -- the outbox --------------------------------------------------------------------

    def do(self, effect: ServerEffect) -> None:
        self._effects.append(effect)

    def send(self, member: Member, message: FromServer) -> None:
        self._effects.append(Send(member.link, message))

    def tell(self, peer: str, message: FromServer) -> None:
        """Send to a peer if it is a member."""
        member = self.roster.named(peer)
        if member is not None:
            self.send(member, message)

    def accept(self, member: Member, accepted: Accepted) -> None:
        """Confirm an owner, after the news: one who is accepted has a ledger. (An owner without
        one would make the next server begin anew what others have finished.)"""
        self._accepted.append((member, accepted))

    def order(self, member: Member, assign: Assign) -> None:
        """Give a task, after the news of it."""
        self._orders.append((member, assign))

    def flush(self) -> list[ServerEffect]:
        """Take out everything to do, news before orders."""
        for txn in self.registry.news():
            self.say_news(txn)
        for member, accepted in self._accepted:
            self.send(member, accepted)
        for member, assign in self._orders:
            self.send(member, assign)
        self._accepted, self._orders = [], []
        effects, self._effects = self._effects, []
        return effects

    def say_news(self, txn: Transaction) -> None:
        """Tell all listeners what is new of a transaction, if anything is."""
        if txn.told_of.pop(txn.meta.record, None) is None:
            return
        news = self.progress(txn)
        for part in _parts(news):
            for peer in txn.listeners():
                self.tell(peer, part)
        txn.entries = []
        txn.freed = []

    @staticmethod
    def progress(txn: Transaction) -> Progress:
        """The news of a transaction and its sums. What is reduced has been mapped, whether or not
        anybody holds the output of the maps."""
        maps, reduces = txn.plans.get("map"), txn.plans.get("reduce")
        reduced = reduces is not None and reduces.n > 0 and reduces.done
        called = sum(holding is not None for holding in txn.calls.values())
        return Progress(
            record=txn.meta.record,
            entries=tuple(txn.entries),
            freed=tuple(txn.freed),
            maps_done=called if maps is None else maps.n if reduced else maps.done_count,
            maps_total=maps.n if maps else len(txn.calls),
            reduces_done=reduces.done_count if reduces else 0,
            reduces_total=reduces.n if reduces else 0,
            finishing=txn.phase() == "finish",
            ran=txn.ran,
        )

    # -- what several parts do ---------------------------------------------------------

    def credit(self, txn: Transaction, holding: Holding, peer: str) -> bool:
        """Count a sealed output; stop the attempts it makes needless. Tell whether it is news."""
        if holding.output.kind == "call":
            return self._credit_call(txn, holding)
        plan = txn.plans.get(holding.output.kind)
        if plan is None or not plan.has(holding.output.start, holding.output.stop):
            return False
        news, needless = plan.credit(holding, peer)
        if news:
            output = holding.output
            txn.news(output.kind, output.start, output.stop, peer, held=True)
        for attempt in needless:
            self.stop(attempt)
            if (attempt.start, attempt.stop, attempt.peer) != (
                holding.output.start,
                holding.output.stop,
                peer,
            ):
                txn.unsay(holding.output.kind, attempt.start, attempt.stop, attempt.peer)
        return news

    @staticmethod
    def _credit_call(txn: Transaction, holding: Holding) -> bool:
        producer = holding.output.producer
        if producer not in txn.calls or txn.calls[producer] is not None:
            return False
        txn.calls[producer] = holding
        txn.news("call", 0, 1, producer, held=True)
        return True

    def stop(self, attempt: Needless) -> None:
        """Tell whoever runs an attempt that it is not wanted, unless it has just ended."""
        member = self.roster.named(attempt.peer)
        if member is not None and member.assigned.pop(attempt.attempt, None) is not None:
            self.send(member, CancelTask(attempt.attempt))

    def credit_held(self, member: Member, held: Held) -> None:
        """Count what a member announced for one record, if the record is known."""
        txn = self.registry.get(held.record)
        if txn is None:
            return
        news = [self.credit(txn, holding, member.ref.peer) for holding in held.holdings]
        if any(news) and held.sizes:
            txn.note_sizes(member.ref.peer, held.sizes)

    def settle(self, peer: str) -> None:
        """A peer has reported all it has: nothing waits for it any more."""
        for txn in self.registry:
            if txn.waiting.pop(peer, None) is not None:
                for plan in txn.plans.values():
                    plan.settle(peer)

    def owners(self, txn: Transaction) -> tuple[str, ...]:
        """The names of its owners, and of those who keep its end, as far as they are here."""
        peers = dict.fromkeys((*(owner.peer for owner in txn.owners.values()), *txn.keepers))
        members = (self.roster.named(peer) for peer in peers)
        return tuple(member.ref.name for member in members if member is not None)

    def find(self, peer: str) -> PeerRef | None:
        """Where a member's data can be fetched."""
        member = self.roster.named(peer)
        return member.ref if member is not None else None


def _parts(news: Progress) -> Iterator[Progress]:
    """Cut long news, as of a big job to a new owner, into what fits into frames."""
    if len(news.entries) + len(news.freed) <= ENTRIES_MAX:
        yield news
        return
    for start in range(0, len(news.freed), ENTRIES_MAX):  # first, as a ledger reads them
        yield structs.replace(news, entries=(), freed=news.freed[start : start + ENTRIES_MAX])
    for start in range(0, len(news.entries), ENTRIES_MAX):
        yield structs.replace(news, entries=news.entries[start : start + ENTRIES_MAX], freed=())
