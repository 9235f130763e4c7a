"""What outlives a process: who may be owed an event, written down before their turn is committed.

An event leaves from the document that its turn was committed with, but only a process that has the session active knows
that there is one. So each process keeps a journal: one value of plain state with the ids of the users who have a turn
open or an event unpublished. A turn is committed only once its user is in the stored journal. That is a share of a
write: all users who are new in it go with the next one, while their models run.

A journal that is not written any more belongs to a process that has stopped. Another adopts it: it takes the users over
into its own, marks the journal as adopted, and asks their actors to publish what they hold. A process that was only
asleep finds the mark, and goes on under another name. Whether somebody has stopped is told by the adopter's own clock,
from a number that moves with each write: no two clocks are compared.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from daca_common.backoff import Backoff
from daca_common.dapr import DaprClient, DaprError, DaprUnavailable

BEAT_SECONDS: Final = 2.0
"""Between two writes of a journal in which nothing has changed."""
STOPPED_SECONDS: Final = 8.0
"""Without a write for so long, a process has stopped."""
GROUP_SECONDS: Final = 0.05
"""How long a write waits for more users while no completion waits for it."""
KEPT: Final = 256
"""Users who are owed nothing any more and stay all the same, so that whoever goes on talking costs no write."""
AT_ONCE: Final = 8
"""Adopted users who are seen to at a time."""
WRITES: Final = 5
"""Tries of one write; each finds out why the one before was refused."""
ADOPTED_SECONDS: Final = 86_400
"""How long the mark on an adopted journal lasts."""

REGISTRY: Final = "journals"
VERSION: Final = 1

_log = logging.getLogger(__name__)

Publish = Callable[[str], Awaitable[None]]
"""Asks a user's actor, wherever it is, to publish what it holds; returns once some journal has its user."""


@dataclass(slots=True)
class _Seen:
    beat: object
    at: float


class Journal:
    """The journal of this process, and the watch over those of others."""

    def __init__(self, dapr: DaprClient, store: str, publish: Publish) -> None:
        self._dapr = dapr
        self._store = store
        self._publish = publish
        self._name = uuid4().hex
        self._registered = False
        self._etag: str | None = None
        self._beat = 0
        self._owed: dict[str, None] = {}
        self._kept: dict[str, None] = {}
        self._keeps = KEPT
        self._adopted: set[str] = set()
        self._stored: frozenset[str] = frozenset()
        self._stored_at = 0.0
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._next: asyncio.Future[None] | None = None
        self._unseen: deque[str] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._seen: dict[str, _Seen] = {}

    def note(self, user_id: str) -> None:
        """A user may be owed an event from now on; a write that holds them follows soon."""
        self._kept.pop(user_id, None)
        self._owed[user_id] = None
        if user_id not in self._stored:
            self._changed.set()

    async def cover(self, user_id: str) -> None:
        """Returns once the stored journal holds a user, and is fresh enough that nobody takes it for left behind.

        Raises:
            DaprError, DaprUnavailable: it could not be written. It is tried again all the time.
        """
        self.note(user_id)
        while user_id not in self._stored or time.monotonic() > self._stored_at + STOPPED_SECONDS / 2:
            await self._written()

    def release(self, user_id: str) -> None:
        """A user is owed nothing by this process any more."""
        if user_id in self._owed:
            del self._owed[user_id]
            self._kept[user_id] = None
            while len(self._kept) > self._keeps:
                del self._kept[next(iter(self._kept))]

    def adopt(self, user_ids: Iterable[str]) -> None:
        """Sees to users whose sessions were active in another process, or are no longer in this one."""
        new = [user_id for user_id in user_ids if user_id not in self._adopted]
        self._adopted.update(new)
        self._unseen.extend(new)
        if not self._stored.issuperset(new):
            self._changed.set()
        while len(self._workers) < min(AT_ONCE, len(self._unseen)):
            task = asyncio.create_task(self._see_to_adopted())
            self._workers.add(task)
            task.add_done_callback(self._workers.discard)

    def hand_over(self, user_id: str) -> None:
        """A session here has something to publish and is gone: its actor is asked, wherever it is now."""
        self.adopt([user_id])
        self.release(user_id)

    async def run(self) -> None:
        """Writes this journal and watches the others, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_for_ever())
            group.create_task(self._watch_for_ever())

    async def drain(self) -> None:
        """The process goes: once this returns, its stored journal holds nobody who is owed nothing.

        Raises:
            DaprError, DaprUnavailable: it could not be written.
        """
        self._keeps = 0
        self._kept.clear()
        await self._written()

    async def _written(self) -> None:
        """Returns after a write that begins now or later."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        self._wanted.set()
        self._changed.set()
        await asyncio.shield(self._next)

    async def _write_for_ever(self) -> None:
        backoff = Backoff(0.05, 2.0)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._changed.wait()
                async with asyncio.timeout(GROUP_SECONDS):
                    await self._wanted.wait()
            self._changed.clear()
            self._wanted.clear()
            waiting, self._next = self._next, None
            try:
                await self._write()
            except (DaprError, DaprUnavailable) as error:
                self._etag = None  # unknown: it is read after the next write was refused
                _log.warning("journal not written, will retry", extra={"error": str(error)})
                if waiting is not None:
                    waiting.set_exception(error)
                    waiting.exception()  # read, if only here: all who waited for it may have gone
                self._changed.set()
                await asyncio.sleep(backoff.next())
            else:
                if waiting is not None:
                    waiting.set_result(None)
                backoff.reset()

    async def _write(self) -> None:
        users = [*{**self._owed, **self._kept, **dict.fromkeys(self._adopted)}]
        self._beat += 1
        value = {"version": VERSION, "beat": self._beat, "users": users}
        if not self._registered:
            await self._register()
        for _ in range(WRITES):
            if await self._dapr.save_state(self._store, _key(self._name), value, self._etag):
                break
            await self._find_footing()
        else:
            raise DaprUnavailable("the journal is refused each time")
        self._etag = str(int(self._etag or 0) + 1)
        self._stored = frozenset(users)
        self._stored_at = time.monotonic()

    async def _find_footing(self) -> None:
        """After a refused write: the journal as it is stored, or one under another name."""
        stored, etag = await self._dapr.get_state(self._store, _key(self._name))
        if stored is not None and "adopted" in stored:
            # Others took this process for stopped. They see to the users it had; whoever is open here is noted anew.
            _log.warning("this process was taken for stopped; its journal goes on under another name")
            self._name = uuid4().hex
            self._stored = frozenset()
            self._registered = False
            await self._register()
        else:
            self._etag = etag

    async def _register(self) -> None:
        """The journal exists before its name is listed, and is listed before anything is committed under it."""
        self._etag = None
        await self._dapr.save_state(self._store, _key(self._name), {"version": VERSION, "beat": 0, "users": []}, None)
        _, self._etag = await self._dapr.get_state(self._store, _key(self._name))
        await self._list(add=self._name)
        self._registered = True

    async def _list(self, *, add: str | None = None, remove: str | None = None) -> list[str]:
        """The names of all journals, one of them added or removed."""
        backoff = Backoff(0.01, 0.2)
        while True:
            stored, etag = await self._dapr.get_state(self._store, REGISTRY)
            names: list[str] = stored["names"] if stored else []
            changed = [name for name in names if name != remove]
            if add is not None and add not in changed:
                changed.append(add)
            value = {"version": VERSION, "names": changed}
            if changed == names or await self._dapr.save_state(self._store, REGISTRY, value, etag):
                return changed
            await asyncio.sleep(backoff.next())

    async def _watch_for_ever(self) -> None:
        while True:
            try:
                await self._watch()
            except (DaprError, DaprUnavailable) as error:
                _log.info("journals of others not read, will retry", extra={"error": str(error)})
            await asyncio.sleep(BEAT_SECONDS)

    async def _watch(self) -> None:
        # Listed again if the list was lost with the store's data.
        names = await self._list(add=self._name if self._registered else None)
        now = time.monotonic()
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}
        for name in names:
            if name == self._name:
                continue
            stored, etag = await self._dapr.get_state(self._store, _key(name))
            beat = stored.get("beat") if stored else None
            seen = self._seen.setdefault(name, _Seen(beat, now))
            if seen.beat != beat:
                self._seen[name] = _Seen(beat, now)
            elif stored is None or "adopted" in stored or now >= seen.at + STOPPED_SECONDS:
                await self._take_over(name, stored, etag)

    async def _take_over(self, name: str, stored: dict[str, Any] | None, etag: str | None) -> None:
        users: list[str] = stored.get("users", []) if stored else []
        if users:
            _log.warning("a process has stopped; its users' events are seen to here", extra={"users": len(users)})
            self.adopt(users)
            for user_id in users:
                while user_id in self._adopted and user_id not in self._stored:
                    await self._written()
        if stored is not None and "adopted" not in stored:
            mark = {"version": VERSION, "adopted": True, "users": []}
            # Refused: it writes after all, or another has adopted it. The next look tells.
            if not await self._dapr.save_state(self._store, _key(name), mark, etag, ttl_seconds=ADOPTED_SECONDS):
                return
        await self._list(remove=name)

    async def _see_to_adopted(self) -> None:
        backoff = Backoff(0.2, 2.0)
        while self._unseen:
            user_id = self._unseen.popleft()
            try:
                await self._publish(user_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, an event is owed: it is tried again
                _log.info("events of an adopted user not seen to, will retry", extra={"error": type(error).__name__})
                self._unseen.append(user_id)
                await asyncio.sleep(backoff.next())
            else:
                backoff.reset()
                self._adopted.discard(user_id)


def _key(name: str) -> str:
    return f"journal-{name}"
