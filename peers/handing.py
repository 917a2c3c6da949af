"""Detached transactions at their submitter: every item read and pickled, given to the keepers.

Whom to give what, and who counts, ``grid.keeping.hand_over`` decides. Promises: a hand-over is done
when at least one keeper has everything on disk; memory is bounded by a chunk and the largest item.
"""

from collections.abc import Callable, Generator, Iterator, Sequence

from grid.errors import Misuse, NotKept
from grid.job import Job
from grid.keeping import Answer, HandedOver, Part, hand_over
from grid.messages import Keep, PeerRef, RecordMeta
from grid.pickling import show
from peers.bulk import Blob, NotHere, Unreachable
from peers.journal import ITEM_BYTES_MAX, Item, encode_items
from peers.shipping import pickle_value

CHUNK_BYTES = 1 << 20
"""Large against a sync of the disk, small against memory."""

CHUNK_ITEMS = 4096

WHOLE = b"whole"
"""The answer to the head of an entry that is whole already."""

Give = Callable[[Keep, bytes], Sequence[Blob]]
"""Gives a part to one keeper. Raises ``NotHere`` or ``Unreachable``."""


class Unheard(NotKept):
    """Nobody said that it has everything, but somebody may have it."""


def chunks(job: Job, keys: Sequence[object], shipped: Sequence[str]) -> Iterator[list[Item]]:
    """Read and pickle all items, a bounded piece at a time. Raises what the datasource raises,
    ``NotPicklable``, or ``Misuse`` for an item that is too large."""
    chunk: list[Item] = []
    size = 0
    for key in keys:
        pair = pickle_value((key, job.value(key)), "the value of key", key, shipped)
        if len(pair) > ITEM_BYTES_MAX:
            raise Misuse(
                f"the value of key {show(key)} has {len(pair)} bytes, a detached job takes at most "
                f"{ITEM_BYTES_MAX} an item: submit it undetached, or in smaller items"
            )
        if chunk and (size + len(pair) > CHUNK_BYTES or len(chunk) == CHUNK_ITEMS):
            yield chunk
            chunk, size = [], 0
        chunk.append(Item(show(key), pair))
        size += len(pair)
    if chunk:
        yield chunk


class HandOver:
    """One transaction on its way. ``give`` says how to give something to a keeper; ``reasons``
    tells why some were left out."""

    def __init__(
        self, meta: RecordMeta, deadline: float, head: bytes, give: Callable[[PeerRef], Give]
    ) -> None:
        self._meta = meta
        self._deadline = deadline
        self._head = head
        self._give = give
        self._chunk = b""
        self.reasons: list[str] = []

    def run(self, keepers: Sequence[PeerRef], items: Iterator[list[Item]]) -> list[str]:
        """Return the names of those who have it. Raises ``NotKept`` when nobody has (``Unheard``
        if that is not certain), or what ``items`` raises."""
        done = self._converse(hand_over(keepers, self._counted(items)))
        if not done.kept:
            why = "; ".join(self.reasons)
            kind = Unheard if done.uncertain else NotKept
            raise kind(f"nobody could keep the detached job, and nothing runs: {why}")
        return [ref.name for ref in done.kept]

    def _converse(self, flow: Generator[Part, Answer, HandedOver]) -> HandedOver:
        try:
            part = next(flow)
            while True:
                part = flow.send(self._said(part))
        except StopIteration as over:
            return over.value  # type: ignore[no-any-return]

    def _counted(self, items: Iterator[list[Item]]) -> Iterator[int]:
        """Encode the chunks, one at a time, as they are asked for."""
        for chunk in items:
            self._chunk = encode_items(chunk)
            yield len(chunk)

    def _said(self, part: Part) -> Answer:
        body = {"head": self._head, "items": self._chunk}.get(part.part, b"")
        request = Keep(
            self._meta,
            part.part,
            first=part.first,
            count=part.count,
            size=len(body),
            deadline=self._deadline,
        )
        try:
            answer = list(self._give(part.keeper)(request, body))
        except (NotHere, Unreachable) as error:
            self.reasons.append(f"{part.keeper.name}: {error}")
            return "failed"
        return "whole" if answer == [WHOLE] else "done"
