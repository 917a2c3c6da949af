"""Whom this peer follows: a snapshot that the client thread writes and every other thread reads.

The doors need it to answer who asks, the data threads to fetch through the server what they cannot
fetch directly. One immutable value is replaced as a whole, so a reader needs no lock and never sees
half of a change.

Promises nothing about now: a server may be gone that was heard a moment ago. ``heard_seconds``
says how long ago that moment was.
"""

import time
from dataclasses import dataclass

from msgspec import structs

from grid.messages import Address, Claim, PeerRef, Welcome

UNHEARD_SECONDS = 1e6
"""How long ago a server was heard that never was: longer than anybody would believe in it."""


@dataclass(frozen=True, slots=True)
class Following:
    """A followed server: how it describes itself, where this peer dials it (its own server may
    have a nearer address than the advertised one), and which peer the way leads through, if this
    peer cannot dial it itself."""

    claim: Claim
    near: Address
    through: PeerRef | None = None


class Whereabouts:
    """Written on one thread, read on any."""

    def __init__(self) -> None:
        self._following: Following | None = None
        self._heard_at: float | None = None

    @property
    def following(self) -> Following | None:
        """The server followed now, or none while there is none."""
        return self._following

    def follow(self, following: Following) -> None:
        """A link to this server stands, so it was heard just now."""
        self._heard_at = time.monotonic()
        self._following = following

    def lose(self) -> None:
        """There is no link to a server."""
        self._following = None

    def heard(self, followers: int) -> None:
        """The server said something; it has so many live members beside itself."""
        self._heard_at = time.monotonic()
        now = self._following
        if now is not None and now.claim.followers != followers:
            claim = structs.replace(now.claim, followers=followers)
            self._following = Following(claim, now.near, now.through)

    def told(self, welcome: Welcome) -> Welcome:
        """The welcome, saying whom this peer follows and how long ago it heard from there."""
        now = self._following
        if now is None:
            return welcome
        seconds = max(0.0, self.heard_seconds())
        reign = now.claim.reign
        return structs.replace(welcome, reign=reign, follows=now.claim, heard_seconds=seconds)

    def heard_seconds(self) -> float:
        """How long ago the server was heard."""
        heard_at = self._heard_at
        return UNHEARD_SECONDS if heard_at is None else time.monotonic() - heard_at
