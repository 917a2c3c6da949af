"""The link between client and server of one process: in memory, no encoding, same order."""

from grid.events import LinkLost, Received
from grid.messages import PATIENCE_SECONDS, PATIENT, Message
from peers.core_thread import CoreThread


class LocalLink:
    """One end. ``send`` hands the message to the other end's thread."""

    def __init__(self, number: int, mine: CoreThread) -> None:
        self.number = number
        self.closed = False
        self._mine = mine
        self._other: LocalLink | None = None
        self._wake_due = False

    @staticmethod
    def pair(
        first: CoreThread, first_number: int, second: CoreThread, second_number: int
    ) -> tuple["LocalLink", "LocalLink"]:
        """Make the two ends."""
        one, two = LocalLink(first_number, first), LocalLink(second_number, second)
        one._other, two._other = two, one
        return one, two

    def send(self, message: Message) -> None:
        other = self._other
        if self.closed or other is None:
            return
        event = Received(other.number, message)
        if not isinstance(message, PATIENT):
            other._mine.post(event)
            return
        other._mine.leave(event)
        if not self._wake_due:
            self._wake_due = True
            self._mine.loop.call_later(PATIENCE_SECONDS, self._wake, other)

    def _wake(self, other: "LocalLink") -> None:
        self._wake_due = False
        other._mine.wake()

    def close(self) -> None:
        """Close this end; the other learns it after what was sent."""
        if not self.closed and self._other is not None:
            self.closed = True
            self._other._mine.post(LinkLost(self._other.number, "closed by its own process"))

    def filenos(self) -> list[int]:
        return []
