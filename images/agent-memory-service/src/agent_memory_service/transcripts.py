"""The transcript of every session, for each of its users: complete, in order, each turn once.

A transcript is kept in pages. A page has the turns of a few sequence numbers, so a repeated event always meets the page
that knows it, whatever came between. What pages there are is in a tree: a node has a bit for each of its 256 children,
and the root grows a level when a number lies outside of it. So an append reads and writes as much at message 10 as at
message 100,000, and reading backwards reads no more than it shows.

A node names a child before that is written: a child that never came does no harm, one that no node names would be lost.

``sequence`` counts a user's turns over all sessions. Turns up to the one through which a user was erased are refused:
the root and each page carry that number. Erasing goes from the root down and leaves the mark of an erased document
wherever a node has a bit, so whoever is about to write there is refused and begins again at the root.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from enum import Enum, auto
from typing import Any, Final, NamedTuple, NotRequired, TypedDict

import orjson
from daca_common.conversation_updated import ConversationUpdated
from daca_common.dapr import FOR_EVER

from agent_memory_service.documents import ATTEMPTS, VERSION, Contended, Document, Documents, Found, pause
from agent_memory_service.users import Users

NUMBERS_PER_PAGE: Final = 8
TURNS_PER_PAGE: Final = 64
"""More than numbers: a user whose session lost its data counts again from 1."""
APART_BYTES: Final = 16 * 1024
"""A turn of more is a document of its own and has only its number in the page: a page is 1 MiB at most."""
BITS: Final = 8
"""A node has 2**BITS children."""
READS_AT_ONCE: Final = 16
NO_CHILD: Final = "0" * (2**BITS // 4)


class Turn(TypedDict):
    """A turn as it is stored."""

    event_id: str
    sequence: int
    turn_id: str
    occurred_at: str
    user_message: str
    assistant_reply: str


class _Stub(TypedDict):
    """What a page has of a turn: all of it, or where it is apart only what finds it."""

    event_id: str
    sequence: int
    apart: NotRequired[bool]


class Appended(Enum):
    """What became of a turn: added, there before, of a time that the user had erased, or one for which there will never
    be a place: so many turns have the same numbers that no user's counter can have made them."""

    NEW = auto()
    KNOWN = auto()
    ERASED = auto()
    UNSTORABLE = auto()


class Page(NamedTuple):
    """Turns, oldest first, and the ``before`` that asks for those before them; ``None``: there are none."""

    turns: list[Turn]
    before: int | None


class _Node(NamedTuple):
    """A node of a tree while it is walked; the root is at the tree's height, pages are at level 0."""

    tree: Document
    level: int
    at: int
    children: str

    @classmethod
    def root(cls, tree: Document) -> "_Node":
        return cls(tree, tree["height"], tree["at"], tree["children"])

    def below(self, number: int, document: Document) -> "_Node":
        return _Node(self.tree, self.level - 1, number, document["children"])

    def numbers(self) -> Iterator[int]:
        """Of its children, the highest first."""
        bits = int(self.children, 16)
        return (self.at << BITS | child for child in reversed(range(2**BITS)) if bits >> child & 1)


class _Erased(Exception):
    """The mark of an erased document lies where something was to be written."""


class Transcripts:
    """The transcripts of all sessions.

    Every method raises ``DaprError``, ``DaprUnavailable`` or ``LaterVersion`` as :class:`Documents` does.
    """

    def __init__(self, documents: Documents, users: Users, retention_seconds: int = 0) -> None:
        self._documents = documents
        self._users = users
        self._expire = bool(retention_seconds)
        self._ttl = retention_seconds or FOR_EVER

    @staticmethod
    def place(event: ConversationUpdated) -> tuple[str, str, int]:
        """Where an event's turn goes: those with the same place are appended together."""
        return event.session_id, event.user_id, event.sequence // NUMBERS_PER_PAGE

    async def append(self, *events: ConversationUpdated) -> list[Appended]:
        """Adds the turns of events that have the same place, in one write; what became of each.

        Raises:
            Contended: others wrote each time. As after any error, the turns may have been added; a repeat tells.
        """
        own = _Keys(events[0].session_id, events[0].user_id)
        turns = [_Addition.of(event, own) for event in events]
        for attempt in range(ATTEMPTS):
            try:
                outcomes = await self._try(own, turns)
            except _Erased:
                outcomes = None
            if outcomes is not None:
                for turn, outcome in zip(turns, outcomes, strict=True):
                    if outcome is Appended.ERASED and turn.apart:
                        await self._documents.delete(turn.apart)  # written before the page refused it
                return outcomes
            await pause(attempt)
        raise Contended

    async def first_user(self, session_id: str) -> str | None:
        """Who wrote first into a session; ``None`` for one that nobody has heard of."""
        session = (await self._documents.read(_session_key(session_id))).document
        return None if session is None else str(session["user_id"])

    async def read(self, session_id: str, user_id: str, *, limit: int | None = None, before: int | None = None) -> Page:
        """A user's turns in a session: all, or the last ``limit`` with sequences less than ``before``.

        Turns with the same number are not parted, so there may be some more.
        """
        own = _Keys(session_id, user_id)
        root = (await self._documents.read(own.root)).document
        if root is None or (before is not None and before <= 1):
            return Page([], None)
        highest = (before - 1) // NUMBERS_PER_PAGE if before is not None else 2**64
        numbers = aiter(self._numbers(own, _Node.root(root), highest))
        newest: list[tuple[int, _Stub]] = []
        missing = 0
        while limit is None or len(newest) <= limit:  # one more than is shown tells that there is one
            wanted = READS_AT_ONCE if limit is None else -(-(limit + 1 - len(newest)) // NUMBERS_PER_PAGE)
            batch = [number async for number in _take(numbers, min(wanted, READS_AT_ONCE))]
            if not batch:
                break
            pages = await asyncio.gather(*(self._documents.read(own.page(number)) for number in batch))
            for number, page in zip(batch, pages, strict=True):
                missing = 0 if page.document else missing + 1
                turns: list[_Stub] = page.document["turns"] if page.document else []
                shown = [turn for turn in turns if before is None or turn["sequence"] < before]
                newest += [(number, turn) for turn in sorted(shown, key=lambda turn: -turn["sequence"])]
            if self._expire and missing >= READS_AT_ONCE:
                break  # older ones have expired, too
        end = len(newest)
        if limit is not None and end > limit:
            end = limit
            while end < len(newest) and newest[end][1]["sequence"] == newest[end - 1][1]["sequence"]:
                end += 1
        more = newest[end - 1][1]["sequence"] if end < len(newest) else None
        return Page([turn async for turn in self._whole(own, newest[:end][::-1])], more)

    async def erase(self, session_id: str, user_id: str, through: int) -> tuple[int, bool]:
        """Erases a user's turns up to ``through``; how many, and whether there are later ones.

        The user must be buried. Done again after a failure it goes on.

        Raises:
            Contended: others wrote each time.
        """
        own = _Keys(session_id, user_id)
        await self._release(session_id, user_id)

        async def detached(found: Found) -> Document | None:
            root = found.document
            if root is None or root["erased_through"] >= through:
                return None
            tree = {name: root[name] for name in ("erased_through", "height", "at", "children")}
            return root | _empty(through) | {"erasing": [*root.get("erasing", ()), tree]}

        await self._documents.update(own.root, detached)
        removed = 0
        root = (await self._documents.read(own.root)).document
        for tree in root.get("erasing", ()) if root else ():
            removed += await self._erase_below(own, _Node.root(tree), through)
        for attempt in range(ATTEMPTS):
            found = await self._documents.read(own.root)
            root = found.document
            if root is None or root["children"] == NO_CHILD:
                if await self._documents.mark_erased(own.root, found):
                    return removed, False
            else:
                rest = {name: value for name, value in root.items() if name != "erasing"}
                if await self._documents.write(own.root, rest, found):
                    return removed, True
            await pause(attempt)
        raise Contended

    async def _try(self, own: "_Keys", additions: list["_Addition"]) -> list[Appended] | None:
        """Adds turns to their page; ``None`` where another writer came first."""
        number = additions[0].number
        found = await self._documents.read(own.page(number))
        page = found.document
        if page is None:
            through = await self._list(own, number, max(addition.sequence for addition in additions))
            if through is None:
                return [Appended.ERASED] * len(additions)
            page = {"version": VERSION, "erased_through": through, "turns": []}
        turns: list[_Stub] = list(page["turns"])
        outcomes = []
        for addition in additions:
            outcome = _judge(turns, addition, page["erased_through"])
            if outcome is Appended.NEW:
                if addition.apart:
                    whole = {"version": VERSION, "turn": addition.turn}
                    await self._documents.put(addition.apart, whole, ttl_seconds=self._ttl)
                turns.append(addition.stub)
            outcomes.append(outcome)
        if Appended.NEW not in outcomes:
            return outcomes
        page = page | {"turns": turns}
        written = await self._documents.write(own.page(number), page, found, ttl_seconds=self._ttl)
        return outcomes if written else None

    async def _list(self, own: "_Keys", number: int, sequence: int) -> int | None:
        """Lists a page in the tree; through which turn the user was erased, or ``None`` where that covers this one."""
        root: Document | None = None

        async def listed(found: Found) -> Document | None:
            nonlocal root
            root = found.document
            if root is None:
                through = await self._users.note(own.user_id, own.session_id, sequence)
                if sequence > through:
                    await self._claim(own.session_id, own.user_id, sequence)
                root = _empty(through)
            if sequence <= root["erased_through"]:
                root = None
                return None
            while number >> (BITS * root["height"]) != root["at"]:
                root = await self._grown(own, root, number)
            root = root | {"children": _with(root["children"], number >> (BITS * (root["height"] - 1)))}
            return None if root == found.document else root

        await self._documents.update(own.root, listed)
        if root is None:
            return None
        await self._list_below(own, root, 1, number)
        return int(root["erased_through"])

    async def _grown(self, own: "_Keys", root: Document, number: int) -> Document:
        """The root with one level more: what it has becomes its first child. An empty one begins where it is needed."""
        height, at, children = root["height"], root["at"], root["children"]
        if children == NO_CHILD:
            return root | {"height": 1, "at": number >> BITS}

        async def moved(found: Found) -> Document:
            if found.erased:
                raise _Erased
            node = found.document or {"version": VERSION, "children": NO_CHILD}
            # Another may have grown the root meanwhile, and listed more in the node since.
            return node | {"children": _both(node["children"], children)}

        await self._documents.update(own.node(root, height, at), moved)
        return root | {"height": height + 1, "at": at >> BITS, "children": _with(NO_CHILD, at)}

    async def _list_below(self, own: "_Keys", root: Document, level: int, number: int) -> None:
        """Lists a page in the node of ``level`` that is over it, and that node in the one over it if it is new."""
        if level == root["height"]:
            return

        async def listed(found: Found) -> Document | None:
            if found.erased:
                raise _Erased
            if found.document is None:
                await self._list_below(own, root, level + 1, number)
            node = found.document or {"version": VERSION, "children": NO_CHILD}
            children = _with(node["children"], number >> (BITS * (level - 1)))
            return None if children == node["children"] else node | {"children": children}

        await self._documents.update(own.node(root, level, number >> (BITS * level)), listed)

    async def _claim(self, session_id: str, user_id: str, sequence: int) -> None:
        """Makes a user the first of a session that has none."""

        async def claimed(found: Found) -> Document | None:
            if found.erased and sequence <= await self._users.erased_through(user_id):
                raise _Erased
            return None if found.document else {"version": VERSION, "user_id": user_id}

        await self._documents.update(_session_key(session_id), claimed)

    async def _release(self, session_id: str, user_id: str) -> None:
        """A user is no longer the first of a session; the next who comes to it is."""
        for attempt in range(ATTEMPTS):
            found = await self._documents.read(_session_key(session_id))
            if found.document is not None and found.document["user_id"] != user_id:
                return
            if await self._documents.mark_erased(_session_key(session_id), found):
                return
            await pause(attempt)
        raise Contended

    async def _numbers(self, own: "_Keys", node: _Node, highest: int) -> AsyncIterator[int]:
        """The numbers of the pages below a node, the highest first."""
        for number in node.numbers():
            if number << (BITS * (node.level - 1)) > highest:
                continue
            if node.level == 1:
                yield number
            elif below := (await self._documents.read(own.node(node.tree, node.level - 1, number))).document:
                async for page in self._numbers(own, node.below(number, below), highest):
                    yield page

    async def _whole(self, own: "_Keys", found: list[tuple[int, _Stub]]) -> AsyncIterator[Turn]:
        """The turns of stubs; one whose text has expired is left out."""
        at_once = asyncio.Semaphore(READS_AT_ONCE)

        async def whole(number: int, stub: _Stub) -> Any:
            if not stub.get("apart"):
                return stub
            async with at_once:
                apart = (await self._documents.read(own.turn(number, stub["event_id"]))).document
            return apart["turn"] if apart else None

        for turn in await asyncio.gather(*(whole(number, stub) for number, stub in found)):
            if turn is not None:
                yield turn

    async def _erase_below(self, own: "_Keys", node: _Node, through: int) -> int:
        """Erases what is below a node; how many turns that were."""
        removed = 0
        for number in node.numbers():
            if node.level == 1:
                removed += await self._erase_page(own, number, through)
            else:
                removed += await self._erase_node(own, node, number, through)
        return removed

    async def _erase_node(self, own: "_Keys", over: _Node, number: int, through: int) -> int:
        """Erases a node and what is below it; how many turns that were."""
        key = own.node(over.tree, over.level - 1, number)
        removed = 0
        for attempt in range(ATTEMPTS):
            found = await self._documents.read(key)
            if found.document is not None:
                removed += await self._erase_below(own, over.below(number, found.document), through)
            if await self._documents.mark_erased(key, found):
                return removed
            await pause(attempt)  # a page was listed meanwhile
        raise Contended

    async def _erase_page(self, own: "_Keys", number: int, through: int) -> int:
        key = own.page(number)
        removed = 0
        for attempt in range(ATTEMPTS):
            found = await self._documents.read(key)
            page = found.document
            turns: list[_Stub] = page["turns"] if page else []
            kept = [turn for turn in turns if turn["sequence"] > through]
            gone = [turn for turn in turns if turn["sequence"] <= through]
            removed = max(removed, len(gone))  # what counted as refused may have been written: then none is found here
            apart = [turn for turn in gone if turn.get("apart")]
            if page is not None and apart and page["erased_through"] < through:
                # From here on whoever writes such a turn again finds it erased, and removes what was written of it.
                closed = page | {"erased_through": through}
                if not await self._documents.write(key, closed, found, ttl_seconds=self._ttl):
                    await pause(attempt)
                continue
            for turn in apart:
                await self._documents.delete(own.turn(number, turn["event_id"]))
            if page is not None and kept:
                # The user has gone on meanwhile, in a page of before: it moves to the tree of after.
                await self._list(own, number, kept[0]["sequence"])
                rest = page | {"erased_through": through, "turns": kept}
                if await self._documents.write(key, rest, found, ttl_seconds=self._ttl):
                    return removed
            elif await self._documents.mark_erased(key, found):
                return removed
            await pause(attempt)
        raise Contended


def _judge(turns: list["_Stub"], addition: "_Addition", erased_through: int) -> Appended:
    """Whether a turn belongs to those of its page."""
    if addition.sequence <= erased_through:
        return Appended.ERASED
    if any(known["event_id"] == addition.event_id for known in turns):
        return Appended.KNOWN
    return Appended.NEW if len(turns) < TURNS_PER_PAGE else Appended.UNSTORABLE


class _Addition(NamedTuple):
    """A turn that is to be added."""

    event_id: str
    sequence: int
    number: int
    """Of its page."""
    turn: Turn
    apart: str | None
    """The key of its own document, if it is too large for the page."""

    @classmethod
    def of(cls, event: ConversationUpdated, own: "_Keys") -> "_Addition":
        number = event.sequence // NUMBERS_PER_PAGE
        turn: Any = event.model_dump(exclude={"event_type", "session_id", "user_id"})
        apart = own.turn(number, event.event_id) if len(orjson.dumps(turn)) > APART_BYTES else None
        return cls(event.event_id, event.sequence, number, turn, apart)

    @property
    def stub(self) -> Any:
        """What the page has of it."""
        if self.apart:
            return {"event_id": self.event_id, "sequence": self.sequence, "apart": True}
        return self.turn


class _Keys:
    """The keys of a user's transcript in a session. An id may hold "-" and digits, but no ":"."""

    def __init__(self, session_id: str, user_id: str) -> None:
        self.session_id = session_id
        self.user_id = user_id
        self.root = f"turns-{session_id}:{user_id}"

    def page(self, number: int) -> str:
        return f"{self.root}:{number}"

    def turn(self, number: int, event_id: str) -> str:
        return f"{self.root}:{number}:{event_id}"

    def node(self, tree: Document, level: int, number: int) -> str:
        """A node above pages: level 1 and up. A tree of after an erasure shares none with that of before."""
        return f"{self.root}:{tree['erased_through']}.{level}.{number}"


def _session_key(session_id: str) -> str:
    return f"session-{session_id}"


def _empty(erased_through: int) -> Document:
    """A tree without pages. At height h it spans the pages whose number, less its last h * BITS bits, is ``at``."""
    return {"version": VERSION, "erased_through": erased_through, "height": 1, "at": 0, "children": NO_CHILD}


def _with(children: str, child: int) -> str:
    return _both(children, f"{1 << child % 2**BITS:x}")


def _both(children: str, more: str) -> str:
    return f"{int(children, 16) | int(more, 16):0{len(NO_CHILD)}x}"


async def _take(numbers: AsyncIterator[int], count: int) -> AsyncIterator[int]:
    for _ in range(count):
        try:
            yield await anext(numbers)
        except StopAsyncIteration:
            return
