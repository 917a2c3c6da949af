"""Who is silent, and not blaming others for one's own pause.

Each watched party is heard or not. Silence longer than the limit is death, unless it was we who
did not run: when the gap between two looks is longer than a heartbeat beyond what was planned,
everyone gets the time back. (A frozen process that wakes would otherwise accuse the whole grid.)
Closed connections are noticed elsewhere, and at once; this is for those who stay silent.
"""


class FailureDetector:
    """Watches parties by number. All times are the core's ``now`` in seconds."""

    def __init__(self, heartbeat_seconds: float, silence_seconds: float) -> None:
        self._heartbeat = heartbeat_seconds
        self._silence = silence_seconds
        self._heard: dict[int, float] = {}
        self._looked: float | None = None

    def heard(self, party: int, now: float) -> None:
        """Note a sign of life, also the first."""
        self._heard[party] = now

    def heard_at(self, party: int) -> float | None:
        """When this one was heard last."""
        return self._heard.get(party)

    def forget(self, party: int) -> None:
        """Watch this one no more."""
        self._heard.pop(party, None)

    def look(self, now: float) -> None:
        """To be called at every step, which comes at least once a heartbeat; forgives everyone
        the time in which we did not run ourselves."""
        if self._looked is not None:
            pause = now - self._looked - self._heartbeat
            if pause > self._heartbeat:
                for party in self._heard:
                    self._heard[party] += pause
        self._looked = now

    def silent(self, now: float) -> list[int]:
        """Return those who were silent for longer than the limit, in the order first heard."""
        return [party for party, at in self._heard.items() if now - at > self._silence]
