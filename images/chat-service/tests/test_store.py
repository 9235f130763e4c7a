"""Where sessions are kept, over a sidecar's HTTP API: the fence, how it finds its footing again, and receipts."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from chat_service.document import Document
from chat_service.store import PROBED, ActiveElsewhere, DocumentStore, ReceiptStore
from daca_common.dapr import FOR_EVER, DaprClient, DaprError
from support.sidecar import FakeSidecar, State

ALICE = ("UserSessionActor", "alice")
KEY = "history-alice"


@pytest.fixture
async def sidecar() -> AsyncIterator[FakeSidecar]:
    async with FakeSidecar() as sidecar:
        sidecar.backend.active[ALICE] = sidecar
        yield sidecar


@pytest.fixture
async def dapr(sidecar: FakeSidecar) -> AsyncIterator[DaprClient]:
    async with DaprClient(sidecar.port) as dapr:
        yield dapr


@pytest.fixture
def documents(dapr: DaprClient) -> DocumentStore:
    return DocumentStore(dapr)


@pytest.fixture
def expiring(dapr: DaprClient) -> DocumentStore:
    return DocumentStore(dapr, retention_seconds=100)


@pytest.fixture
def state(sidecar: FakeSidecar) -> State:
    return sidecar.actor_state[ALICE]


def said(*texts: str) -> Document:
    document = Document()
    for number, text in enumerate(texts, 1):
        document = document.commit(
            turn_id=f"t{number}", session_id="s", user_text=text, reply_text="ok", fingerprint="f", now="2026-01-01"
        )
    return document


async def saved(documents: DocumentStore, writes: int) -> Document:
    """A document that was written so many times."""
    document = Document()
    for rev in range(1, writes + 1):
        document = replace(said(*(f"m{number}" for number in range(rev))), rev=rev)
        await documents.save("alice", document)
    return document


class TestTheFence:
    async def test_a_document_is_what_was_saved(self, documents: DocumentStore):
        assert await documents.load("alice") == Document()
        document = await saved(documents, 3)
        assert await documents.load("alice") == document

    @pytest.mark.parametrize("rev", [1, 2, 3, 5])
    async def test_only_the_successor_of_what_is_stored_is_written(self, documents: DocumentStore, rev: int):
        document = await saved(documents, 3)
        with pytest.raises(DaprError) as refused:
            await documents.save("alice", replace(said("another"), rev=rev))
        assert refused.value.mismatch
        assert await documents.load("alice") == document

    async def test_nothing_is_read_or_written_of_an_actor_that_is_elsewhere(
        self, documents: DocumentStore, sidecar: FakeSidecar
    ):
        del sidecar.backend.active[ALICE]
        with pytest.raises(ActiveElsewhere):
            await documents.load("alice")
        with pytest.raises(ActiveElsewhere):
            await documents.save("alice", replace(said("hi"), rev=1))


class TestItsFooting:
    @pytest.mark.parametrize("count", [1, 2, 17, PROBED])
    async def test_it_is_found_where_the_count_began_anew(self, documents: DocumentStore, state: State, count: int):
        stored = await saved(documents, 40)
        state.restore(KEY, stored.dump(), count)
        await self._heals(documents, state, stored)

    @pytest.mark.parametrize("more", [1, 2, PROBED])
    async def test_it_is_found_where_somebody_wrote_without_an_etag(
        self, documents: DocumentStore, state: State, more: int
    ):
        stored = await saved(documents, 50)
        state.restore(KEY, stored.dump(), 50 + more)
        await self._heals(documents, state, stored)

    async def test_a_count_that_only_a_hand_can_have_set_makes_the_key_anew(
        self, documents: DocumentStore, state: State, caplog: pytest.LogCaptureFixture
    ):
        stored = await saved(documents, 3)
        state.restore(KEY, stored.dump(), 5000)
        await self._heals(documents, state, stored)
        assert "alice" not in " ".join(str(vars(record)) for record in caplog.records)
        assert [record.levelname for record in caplog.records if record.name == "chat_service.store"] == ["ERROR"]

    async def test_a_document_that_changes_meanwhile_is_left_alone(
        self, documents: DocumentStore, sidecar: FakeSidecar, state: State
    ):
        stored = await saved(documents, 3)
        state.restore(KEY, stored.dump(), 7)
        other = replace(said("of another"), rev=9)
        reads = 0

        async def another_writes(request: web.Request) -> None:
            nonlocal reads
            reads += request.method == "GET"
            if reads == 4:
                state.restore(KEY, other.dump(), 8)

        sidecar.before = another_writes
        assert await documents.save_where_the_count_differs("alice", stored, said("m0", "m1", "m2", "mine")) is None
        assert await documents.load("alice") == other

    async def test_a_refusal_for_another_reason_never_makes_a_key_anew(
        self, documents: DocumentStore, sidecar: FakeSidecar, state: State
    ):
        stored = await saved(documents, 3)

        async def full(request: web.Request) -> web.Response | None:
            if request.method != "PUT":
                return None
            message = "OOM command not allowed when used memory > 'maxmemory'"
            return web.json_response({"errorCode": "ERR", "message": message}, status=500)

        sidecar.before = full
        with pytest.raises(DaprError):
            await documents.save_where_the_count_differs("alice", stored, said("mine"))
        sidecar.before = None
        assert (await documents.load("alice"), state.etag(KEY)) == (stored, "3")

    async def _heals(self, documents: DocumentStore, state: State, stored: Document) -> None:
        changed = replace(stored, turn_no=stored.turn_no + 1)
        found = await documents.save_where_the_count_differs("alice", stored, changed)
        assert found is not None
        assert (found.turn_no, str(found.rev)) == (changed.turn_no, state.etag(KEY))
        assert await documents.load("alice") == found
        await documents.save("alice", replace(found, rev=found.rev + 1))


class TestRetention:
    async def test_a_document_lasts_so_long_from_its_last_write(self, expiring: DocumentStore, state: State):
        await saved(expiring, 3)
        assert state.ttl(KEY) == 100

    async def test_who_comes_back_after_their_document_has_expired_is_counted_on(
        self, expiring: DocumentStore, state: State
    ):
        await saved(expiring, 3)
        state.delete(KEY)
        document = await expiring.load("alice")
        assert (document.turn_no, document.sequence, document.window) == (3, 3, ())
        again = document.commit(
            turn_id="t4", session_id="s", user_text="back", reply_text="ok", fingerprint="f", now="2026-01-01"
        )
        await expiring.save("alice", replace(again, rev=1))
        assert (await expiring.load("alice")).window == again.window
        assert state.ttl("counters-alice") is None

    async def test_a_new_user_has_no_counters(self, expiring: DocumentStore):
        assert await expiring.load("alice") == Document()

    async def test_a_document_that_is_kept_for_ever_loses_the_time_that_it_had(
        self, expiring: DocumentStore, documents: DocumentStore, state: State
    ):
        document = await saved(expiring, 3)
        await documents.save("alice", replace(document, rev=4))
        assert state.ttl(KEY) == FOR_EVER
        assert list(state) == [KEY, "counters-alice"]

    async def test_without_a_retention_nothing_is_kept_besides(self, documents: DocumentStore, state: State):
        await saved(documents, 1)
        assert list(state) == [KEY]

    async def test_a_key_that_is_made_anew_expires_too(self, expiring: DocumentStore, state: State):
        document = await saved(expiring, 1)
        state.restore(KEY, document.dump(), 1000)
        await expiring.save_where_the_count_differs("alice", document, document.clear())
        assert (state.etag(KEY), state.ttl(KEY)) == ("1", 100)


class TestReceipts:
    @pytest.fixture
    def receipts(self, dapr: DaprClient) -> ReceiptStore:
        return ReceiptStore(dapr, "statestore", key_seconds=60)

    async def test_a_turns_receipt_has_its_reply_for_as_long_as_a_key_is_known(
        self, receipts: ReceiptStore, sidecar: FakeSidecar
    ):
        (turn, _) = said("hi", "hello").exchanges
        await receipts.put("alice", 1, said("hi", "hello").exchanges)
        found = await receipts.get("alice", "t1")
        assert found is not None
        assert (found.reply_text, found.sequence, found.turn_no) == ("ok", turn.sequence, turn.turn_no)
        state = sidecar.state["statestore"]
        assert [state.ttl(key) for key in ("reply-alice:t1", "receipt-alice:t1")] == [60, None]
        state.delete("reply-alice:t1")
        expired = await receipts.get("alice", "t1")
        assert expired is not None
        assert (expired.reply_text, expired.session_id) == (None, "s")

    async def test_under_a_retention_what_tells_that_a_key_was_used_expires_too(
        self, dapr: DaprClient, sidecar: FakeSidecar
    ):
        receipts = ReceiptStore(dapr, "statestore", key_seconds=60, retention_seconds=100)
        await receipts.put("alice", 1, said("hi").exchanges)
        state = sidecar.state["statestore"]
        assert [state.ttl(key) for key in ("reply-alice:t1", "receipt-alice:t1", "receipts-alice:1")] == [60, 100, 100]

    async def test_there_is_none_of_another_users_turn(self, receipts: ReceiptStore):
        await receipts.put("alice", 1, said("hi").exchanges)
        assert await receipts.get("bob", "t1") is None

    async def test_all_of_a_users_are_removed_also_those_of_a_page_that_was_not_counted_yet(
        self, receipts: ReceiptStore, sidecar: FakeSidecar
    ):
        first, second, third = said("a", "b", "c").exchanges
        await receipts.put("alice", 1, (first,))
        await receipts.put("alice", 2, (second, third))
        await receipts.put("bob", 1, (first,))
        assert await receipts.erase("alice", pages=1) == 3
        left: list[Any] = list(sidecar.state["statestore"])
        assert sorted(left) == ["receipt-bob:t1", "receipts-bob:1", "reply-bob:t1"]
        assert await receipts.erase("alice", pages=1) == 0
