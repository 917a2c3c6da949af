"""Faults to plant in the cores, one at a time, to see that the simulator notices each.

Every fault is one method replaced by a wrong one: small mistakes that a change could well make.
``FAULTS`` are noticed by random grids, ``LOSING`` ones by those with detached work, ``RAISING``
ones by those in which user code raises, ``SPLITTING`` ones by the scene that is made for them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from grid import keeping, registry, rivals, submissions
from grid.attempts import Attempts
from grid.client_core import ClientCore
from grid.copies import Copies
from grid.dispatcher import Dispatcher
from grid.effects import ClientEffect, Deliver, FetchResult, Probe, Reject
from grid.election import Election
from grid.events import EstateAdopted, ReignBegan
from grid.failure_detector import FailureDetector
from grid.holdings import Holdings
from grid.keeping import Keeper
from grid.messages import Acknowledge, Cancel, Held, Successor
from grid.ownership import Ownership
from grid.places import Places
from grid.plan import Plan
from grid.roster import Roster
from grid.search import Search
from grid.server_core import ServerCore
from grid.server_state import ServerState
from grid.submissions import Submissions

Wrong = Callable[..., Any]


@dataclass(frozen=True)
class Fault:
    """A function of a class or module, and what makes the wrong one of the right one. ``seed`` is
    where to look first: this seed found it once."""

    seed: int
    owner: Any
    method: str
    make: Callable[[Any], Wrong]


@dataclass(frozen=True)
class Splitting:
    """A function of a class or module, and what makes the wrong one of the right one. ``scene`` is
    the one of ``directed`` that it spoils."""

    scene: str
    owner: Any
    method: str
    make: Callable[[Any], Wrong]


def skip_settling(right: Any) -> Wrong:
    def on_reign(self: ServerCore, event: ReignBegan, now: float) -> None:
        right(self, event, now)
        self.state.settled = True

    return on_reign


def forget_a_holding(right: Any) -> Wrong:
    def held(self: Holdings, now: float) -> tuple[Held, ...]:
        rows: tuple[Held, ...] = right(self, now)
        return tuple(Held(h.record, h.holdings[:-1], h.sizes, h.remembered) for h in rows)

    return held


def fetch_whenever_told(right: Any) -> Wrong:
    def finished(self: Ownership, message: Any) -> list[ClientEffect]:
        return [FetchResult(message.txn, message.record, message.holdings)]

    return finished


def deliver_whenever_fetched(right: Any) -> Wrong:
    def fetched(self: Ownership, txn: str, holdings: Any) -> Any:
        effects, messages = right(self, txn, holdings)
        return [*effects, *(e for e in effects if isinstance(e, Deliver))], messages

    return fetched


def reuse_the_term(right: Any) -> Wrong:
    def reign_anew(self: Election, now: float) -> list[ClientEffect]:
        seen = self.seen
        self.seen = type(seen)(max(0, seen.term - 1), seen.id)
        return list(right(self, now))

    return reign_anew


def forget_an_owner(right: Any) -> Wrong:
    return lambda self: right(self)[:-1]


def repeat_no_cancel(right: Any) -> Wrong:
    return lambda self: [said for said in right(self) if not isinstance(said, Cancel)]


def repeat_no_acknowledgement(right: Any) -> Wrong:
    return lambda self: [said for said in right(self) if not isinstance(said, Acknowledge)]


def cut_anywhere(right: Any) -> Wrong:
    def cut(self: Plan, tile: Any, size: int) -> Any:
        size = max(size, 3)
        if tile.stop - tile.start <= size:
            return tile
        rest = tile.part(tile.start + size, tile.stop)
        tile.stop = tile.start + size
        for piece in (tile, rest):
            self._tiling._tiles[piece.start] = (piece.stop, piece)
        return tile

    return cut


def never_abdicate(right: Any) -> Wrong:
    return lambda self, event: []


def compare_rivals_by_port(right: Any) -> Wrong:
    def meet(self: Election, event: Any) -> list[ClientEffect]:
        return [] if event.address.port > self.settings.port else list(right(self, event))

    return meet


def orders_before_news(right: Any) -> Wrong:
    def flush(self: ServerState) -> Any:
        for member, assign in self._orders:
            self.send(member, assign)
        self._orders = []
        return right(self)

    return flush


def nothing(right: Any) -> Wrong:
    return lambda *args, **kwargs: None


def nothing_found(right: Any) -> Wrong:
    return lambda *args, **kwargs: []


def keep_the_attempts_of_the_dead(right: Any) -> Wrong:
    def part(self: Dispatcher, member: Any, now: float) -> None:
        member.assigned.clear()
        right(self, member, now)

    return part


def say_nothing_runs(right: Any) -> Wrong:
    return lambda self: ()


def ignore_estates(right: Any) -> Wrong:
    def on(self: ClientCore, event: Any, now: float) -> None:
        if not isinstance(event, EstateAdopted):
            right(self, event, now)

    return on


def drop_what_is_unknown(right: Any) -> Wrong:
    def take_held(self: ServerCore, member: Any, held: Held, now: float) -> None:
        if self.state.registry.get(held.record) is None:
            self.state.registry.bury(held.record)
        right(self, member, held, now)

    return take_held


def reduce_what_is_there(right: Any) -> Wrong:
    def sources(self: registry.Transaction, kind: Any, where: Any) -> Any:
        found = right(self, kind, where)
        return found[:-1] if kind == "reduce" and found else found

    return sources


def blame_others(right: Any) -> Wrong:
    def look(self: FailureDetector, now: float) -> None:
        self._looked = now

    return look


def revive_at_once(right: Any) -> Wrong:
    def submit(self: Ownership, txn: str, meta: Any, *rest: Any) -> Any:
        said = right(self, txn, meta, *rest[:-1])
        if meta.keeping is None:
            return said
        self._owned[txn].accepted = True
        return [self._submission(self._owned[txn])]

    return submit


def show_when_it_ends(right: Any) -> Wrong:
    return lambda self, txn: txn.state != "running"


def acknowledge_without_room(right: Any) -> Wrong:
    def unkept(self: Ownership, txn: str, now: float) -> Any:
        said = right(self, txn, now)
        return [Acknowledge(cancel.txn, cancel.record) for cancel in said]

    return unkept


def announce_no_ends(right: Any) -> Wrong:
    return lambda self, opened, ended, now: right(self, opened, [], now)


def count_keepers(right: Any) -> Wrong:
    def too_few(self: Copies, txn: Any, keepers: Any, able: Any) -> bool:
        return bool(right(txn, keepers, able)) and len(keepers) < txn.meta.keeping.copies

    return too_few


def call_open_over(right: Any) -> Wrong:
    return lambda row, now: (row.state == "open" and not row.kept) or right(row, now)


FAULTS = {
    "the settling is skipped": Fault(150, ServerCore, "_on_reign", skip_settling),
    "a holding is missing from the join": Fault(1, Holdings, "held", forget_a_holding),
    "running attempts are missing from the join": Fault(7, Attempts, "running", say_nothing_runs),
    "a result is fetched whenever it is announced": Fault(
        0, Ownership, "finished", fetch_whenever_told
    ),
    "a result is delivered twice": Fault(0, Ownership, "fetched", deliver_whenever_fetched),
    "a term is reigned in again": Fault(1, Election, "_reign_anew", reuse_the_term),
    "an owner is forgotten when resubmitting": Fault(
        1, Ownership, "resubmissions", forget_an_owner
    ),
    "a cancel is said only once": Fault(112, Ownership, "resubmissions", repeat_no_cancel),
    "an acknowledgement is said once": Fault(
        140, Ownership, "resubmissions", repeat_no_acknowledgement
    ),
    "ranges are cut anywhere": Fault(0, Plan, "cut", cut_anywhere),
    "a lost output's range is not free again": Fault(1, Plan, "_freed", nothing),
    "no server ever abdicates": Fault(46, Election, "_meet_rival", never_abdicate),
    "a server of a later port is no rival": Fault(
        209, Election, "_meet_rival", compare_rivals_by_port
    ),
    "orders go out before the news of them": Fault(0, ServerState, "flush", orders_before_news),
    "ledgers are not waited for": Fault(1, Submissions, "_expect", nothing),
    "attempts of the dead stay": Fault(5, Dispatcher, "part", keep_the_attempts_of_the_dead),
    "estates of the dead are not announced": Fault(3, ClientCore, "_on", ignore_estates),
    "what a server does not know is dropped": Fault(
        3, ServerCore, "_take_held", drop_what_is_unknown
    ),
    "a reduce misses a holder's outputs": Fault(
        0, registry.Transaction, "sources", reduce_what_is_there
    ),
    "results are retained for ever": Fault(4, Submissions, "expire", nothing),
    "nobody who asks for a result is answered": Fault(4, Submissions, "show_result", nothing),
    "one's own pause is blamed on others": Fault(127, FailureDetector, "look", blame_others),
    "nobody is ever silent": Fault(9, FailureDetector, "silent", nothing_found),
}

LOSING: dict[str, Fault] = {
    "detached work is revived at once": Fault(328, Ownership, "submit", revive_at_once),
    "an end is told before it is on disk": Fault(
        6, Submissions, "_may_be_shown", show_when_it_ends
    ),
    "a keeper without room says that it has the end": Fault(
        11, Ownership, "unkept", acknowledge_without_room
    ),
    "ends on disk are not announced": Fault(15, Keeper, "revived", announce_no_ends),
    "two keepers of one host are two copies": Fault(310, Copies, "_too_few", count_keepers),
    "keepers are not replaced": Fault(12, Copies, "review", nothing),
    "what nobody keeps is over": Fault(12, keeping, "_is_over", call_open_over),
}


def end_while_walking(right: Any) -> Wrong:
    def part(self: Submissions, member: Any, now: float) -> None:
        with patch.object(submissions, "list", iter, create=True):  # where it copies the registry
            right(self, member, now)

    return part


def tell_no_user(right: Any) -> Wrong:
    def failed(self: Ownership, message: Any) -> Any:
        effects, messages = right(self, message)
        return [e for e in effects if not isinstance(e, Reject)], messages

    return failed


def tell_the_user_twice(right: Any) -> Wrong:
    def failed(self: Ownership, message: Any) -> Any:
        effects, messages = right(self, message)
        return [*effects, *(e for e in effects if isinstance(e, Reject))], messages

    return failed


def acknowledge_no_failure(right: Any) -> Wrong:
    return lambda self, message: (right(self, message)[0], [])


def acknowledge_unkept_failures(right: Any) -> Wrong:
    def failed(self: Ownership, message: Any) -> Any:
        effects, messages = right(self, message)
        kept = [self._owned[e.txn] for e in effects if isinstance(e, FetchResult)]
        for owned in kept:
            messages += self._part(owned, Acknowledge(owned.txn, owned.meta.record))
        return ([] if kept else effects), messages

    return failed


def retry_for_ever(right: Any) -> Wrong:
    def failed(self: Dispatcher, member: Any, message: Any) -> Any:
        ended = right(self, member, message)
        return None if message.failure.kind == "raised" else ended

    return failed


def retry_never(right: Any) -> Wrong:
    def failed(self: Dispatcher, member: Any, message: Any) -> Any:
        txn = self._state.registry.get(member.assigned.get(message.attempt, ""))
        ended = right(self, member, message)
        raised = txn is not None and message.failure.kind == "raised"
        return (txn, message.failure) if raised else ended

    return failed


RAISING: dict[str, Fault] = {
    "a transaction ends while the registry is walked": Fault(
        5, Submissions, "part", end_while_walking
    ),
    "a user does not hear of a failure": Fault(0, Ownership, "failed", tell_no_user),
    "a user hears of a failure twice": Fault(0, Ownership, "failed", tell_the_user_twice),
    "a failure is not acknowledged": Fault(0, Ownership, "failed", acknowledge_no_failure),
    "a keeper acknowledges a failure that is not on disk": Fault(
        6, Ownership, "failed", acknowledge_unkept_failures
    ),
    "what raises is retried for ever": Fault(6, Dispatcher, "failed", retry_for_ever),
    "what raises is never retried": Fault(0, Dispatcher, "failed", retry_never),
}


def believe_everyone(right: Any) -> Wrong:
    def vouch(self: Search, voucher: Any, welcome: Any, seen: Any, fresh_seconds: float) -> Any:
        return right(self, voucher, welcome, seen, float("inf"))

    return vouch


def look_without_a_name(right: Any) -> Wrong:
    def look(self: Election, now: float) -> list[ClientEffect]:
        effects = right(self, now)
        return [Probe(e.addresses) if isinstance(e, Probe) else e for e in effects]

    return look


def never(right: Any) -> Wrong:
    return lambda *args: False


def at_once(right: Any) -> Wrong:
    return lambda *args: 0.0


def name_no_doors(right: Any) -> Wrong:
    return lambda self: tuple(Successor(s.ref, ()) for s in right(self))


def compare_terms_alone(right: Any) -> Wrong:
    return lambda followers, reign: (True, reign.term, reign.id)


def forget_who_reached_nothing(right: Any) -> Wrong:
    def returned(self: Dispatcher, member: Any, message: Any, now: float) -> Any:
        ended = right(self, member, message, now)
        for txn in self._state.registry:
            txn.unfed.clear()
        return ended

    return returned


SPLITTING = {
    "a good vouch is grabbed over": Splitting(
        "follows_through_another", Election, "_follow_vouch", nothing_found
    ),
    "tasks go back to who cannot reach their inputs": Splitting(
        "follows_through_another", Dispatcher, "returned", forget_who_reached_nothing
    ),
    "a stale vouch is believed": Splitting(
        "does_not_wait_on_a_stale_vouch", Search, "vouch", believe_everyone
    ),
    "a server does not tell rivals who it is": Splitting(
        "one_rival_finding_the_other_is_enough", Election, "_look_for_rivals", look_without_a_name
    ),
    "nobody points newcomers to the server": Splitting(
        "finds_the_grid_by_a_signpost", Election, "_should_point", never
    ),
    "successors are named without their doors": Splitting(
        "is_found_on_a_host_that_nobody_listed", Roster, "successors", name_no_doors
    ),
    "nobody waits for its turn": Splitting(
        "leaves_the_port_to_those_before_it", Places, "rank_seconds", at_once
    ),
    "rivals compare terms and not followers": Splitting(
        "does_not_take_a_grid_away", rivals, "claim", compare_terms_alone
    ),
    "the quorum is not counted": Splitting(
        "works_at_nothing_without_a_quorum", ServerCore, "_count_quorum", nothing
    ),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Make the cores wrong in this one way."""
    fault = FAULTS.get(name) or LOSING.get(name) or RAISING.get(name) or SPLITTING[name]
    wrong = fault.make(getattr(fault.owner, fault.method))
    with patch.object(fault.owner, fault.method, wrong):
        yield
