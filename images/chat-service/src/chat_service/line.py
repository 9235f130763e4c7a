"""Who may take the next turn of a session: one lease, and the line of those who wait. Pure; times are handed in.

Nothing here is stored. The lease only saves work (what is committed rests on the document's counters), so it may be
lost with its activation.
"""

import secrets
from dataclasses import dataclass
from typing import Final, Literal

SILENT_SECONDS: Final = 2.0
"""A turn that waits elsewhere and has not asked again for so long has lost its place."""

GATHER_SECONDS: Final = 0.1
"""A message that has waited at another activation waits so long at a new one, so that the others come in order."""


@dataclass(slots=True)
class Lease:
    """The right to run a turn."""

    turn_id: str
    claim: str
    token: str
    expires_at: float


@dataclass(slots=True)
class _Waiting:
    arrived_at: float
    asked_at: float
    claims: set[str]
    """Of the requests that wait for this turn; the place is lost when the last of them leaves."""
    stays: bool
    """It is woken here, so it need not ask again to keep its place."""
    gathers: bool
    """It has waited elsewhere, as others may have that were before it."""


class Line:
    """The lease of one activation, and who waits for it, in the order in which messages reached the service."""

    def __init__(self, lease_seconds: float, limit: int, now: float) -> None:
        """``limit`` turns may wait. ``now``, here and below, is the time of one clock, in seconds."""
        self._lease_seconds = lease_seconds
        self._limit = limit
        self._gathered_at = now + GATHER_SECONDS
        self._lease: Lease | None = None
        self._waiting: dict[str, _Waiting] = {}

    @property
    def lease(self) -> Lease | None:
        """The lease as it was last granted; it may have expired."""
        return self._lease

    def is_empty(self, now: float) -> bool:
        """Whether no turn runs or waits."""
        return self._held(now) is None and not self._waiting

    def ask(
        self, turn_id: str, claim: str, *, arrived_at: float, waits: bool, requeued: bool, stays: bool, now: float
    ) -> Lease | int | Literal["crowded"]:
        """The lease, or how many turns are before this one (at least 1), or that there is no place left.

        One that does not wait (``waits``) takes no place; one that is woken here (``stays``) keeps it without asking.
        """
        lease = self._held(now)
        if lease is not None and (lease.turn_id, lease.claim) == (turn_id, claim):
            lease.expires_at = now + self._lease_seconds
            return lease
        self._forget_the_silent(now)
        if (known := self._waiting.get(turn_id)) is not None:
            known.asked_at = now
            known.claims.add(claim)
        elif not waits and (lease is not None or self._waiting):
            return len(self._waiting) + (lease is not None)
        elif len(self._waiting) >= self._limit:
            return "crowded"
        else:
            known = self._waiting[turn_id] = _Waiting(arrived_at, now, {claim}, stays, gathers=requeued)
        place = self.order().index(turn_id) + (lease is not None)
        if place or (known.gathers and now < self._gathered_at):
            return max(1, place)
        del self._waiting[turn_id]
        self._lease = Lease(turn_id, claim, secrets.token_hex(8), now + self._lease_seconds)
        return self._lease

    def renew(self, turn_id: str, token: str, now: float) -> bool:
        """Makes the lease last longer; False where another turn has it."""
        lease = self._lease
        if lease is None or (lease.turn_id, lease.token) != (turn_id, token):
            return False
        lease.expires_at = now + self._lease_seconds
        return True

    def leave(self, turn_id: str, token: str, claim: str) -> bool:
        """Gives up a turn's lease, known by its token or claim, or a claim to its place; False where it has none."""
        lease = self._lease
        if (
            lease is not None
            and lease.turn_id == turn_id
            and (lease.token == token or (claim and lease.claim == claim))
        ):
            self._lease = None
            return True
        waiting = self._waiting.get(turn_id)
        if waiting is None or claim not in waiting.claims:
            return False
        waiting.claims.remove(claim)
        if not waiting.claims:
            del self._waiting[turn_id]
        return True

    def finish(self, turn_id: str) -> None:
        """A turn is over, whoever ran it."""
        self._waiting.pop(turn_id, None)
        if self._lease is not None and self._lease.turn_id == turn_id:
            self._lease = None

    def place(self, turn_id: str, now: float) -> int | None:
        """How many turns are before one that waits or has the lease (0); ``None`` for any other."""
        lease = self._held(now)
        if lease is not None and lease.turn_id == turn_id:
            return 0
        return self.order().index(turn_id) + (lease is not None) if turn_id in self._waiting else None

    def order(self) -> list[str]:
        """Who waits, first come first."""
        return sorted(self._waiting, key=lambda turn_id: self._waiting[turn_id].arrived_at)

    def changes_in(self, now: float) -> float:
        """Seconds until the line may move by itself: a lease expires, or one who is silent is forgotten."""
        gathering = now < self._gathered_at and any(item.gathers for item in self._waiting.values())
        ends = [self._gathered_at] if gathering else []
        if (lease := self._held(now)) is not None:
            ends.append(lease.expires_at)
        elif self._waiting:
            ends += [item.asked_at + SILENT_SECONDS for item in self._waiting.values() if not item.stays]
        return max(0.0, min(ends, default=now + self._lease_seconds) - now)

    def _held(self, now: float) -> Lease | None:
        return self._lease if self._lease is not None and self._lease.expires_at > now else None

    def _forget_the_silent(self, now: float) -> None:
        silent = [
            turn_id
            for turn_id, item in self._waiting.items()
            if not item.stays and item.asked_at < now - SILENT_SECONDS
        ]
        for turn_id in silent:
            del self._waiting[turn_id]
