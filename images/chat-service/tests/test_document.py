"""The document: what a commit, a clear, a publication and all the rest make of it."""

from dataclasses import replace

import orjson
import pytest
from chat_service.document import (
    BACKLOG,
    CANCELLED,
    MAX_BYTES,
    OVERFLOW,
    OVERFLOW_BYTES,
    VERSION,
    WINDOW,
    Document,
    Exchange,
)

NOBODY: frozenset[str] = frozenset()


def committed(document: Document, turn_id: str, text: str = "hello", now: str = "2026-01-01T00:00:00Z") -> Document:
    return document.commit(
        turn_id=turn_id, session_id="s", user_text=text, reply_text="reply", fingerprint="f", now=now
    )


def settled(document: Document) -> Document:
    """As it is when everything is published and has its receipt."""
    everybody = frozenset(item.turn_id for item in document.exchanges)
    return document.settle(published=everybody, receipted=everybody)


def after(turns: int) -> Document:
    document = Document()
    for number in range(1, turns + 1):
        document = committed(document, f"t{number}", f"message {number}")
    return document


def stored(document: Document) -> Document:
    return Document.load(orjson.loads(orjson.dumps(document.dump())))


def test_a_new_user_has_an_empty_document():
    assert Document.load(None) == Document()
    assert Document().window == ()


def test_a_document_survives_being_stored_as_json():
    document = replace(after(7).cancel("t9"), rev=9, running_summary="earlier")
    assert stored(document) == document


def test_fields_that_a_later_release_added_are_kept():
    written = after(2).dump() | {"mood": "good"}
    written["exchanges"][0]["language"] = "en"
    rewritten = committed(Document.load(written), "t3").dump()
    assert rewritten["mood"] == "good"
    assert rewritten["exchanges"][0]["language"] == "en"


def test_a_document_of_a_later_version_is_refused_rather_than_overwritten():
    with pytest.raises(ValueError, match=f"reads {VERSION}"):
        Document.load(Document().dump() | {"version": VERSION + 1})


def test_a_document_of_version_1_is_read_and_its_receipts_get_stored_apart():
    exchange = {
        "turn_id": "t9", "turn_no": 9, "sequence": 9, "session_id": "s", "user_text": "hi", "reply_text": "hello",
        "fingerprint": "made otherwise", "occurred_at": "2026-01-01T00:00:00Z", "published": True,
    }  # fmt: skip
    receipt = {"turn_id": "t1", "sequence": 1, "session_id": "s", "fingerprint": "made otherwise"}
    first = {
        "version": 1, "rev": 12, "turn_no": 9, "sequence": 9, "cleared_through": 0, "running_summary": "",
        "exchanges": [exchange], "receipts": [receipt],
    }  # fmt: skip
    document = Document.load(first)
    assert (document.rev, document.turn_no, document.window[0].reply_text) == (12, 9, "hello")
    assert {item.fingerprint for item in document.exchanges} == {item.fingerprint for item in document.receipts} == {""}
    assert [item.turn_id for item in document.unreceipted] == ["t1"]
    assert stored(document.settle(published=NOBODY, receipted=frozenset({"t1"}))).receipts == ()


def test_a_commit_appends_the_exchange_and_moves_the_counters():
    document = after(2)
    assert (document.turn_no, document.sequence) == (2, 2)
    assert [item.user_text for item in document.window] == ["message 1", "message 2"]


def test_the_window_holds_the_last_five_exchanges():
    assert [item.sequence for item in after(WINDOW + 3).window] == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    "missing",
    [
        {"published": NOBODY, "receipted": frozenset({"t1"})},
        {"published": frozenset({"t1"}), "receipted": NOBODY},
    ],
    ids=["not published", "without a receipt"],
)
def test_what_left_the_window_stays_for_as_long_as_something_is_missing(missing: dict[str, frozenset[str]]):
    document = after(WINDOW + 1).summarize("t1 was said", 1)
    assert document.settle(**missing).find("t1") is not None
    complete = document.settle(published=frozenset({"t1"}), receipted=frozenset({"t1"}))
    assert complete.find("t1") is None
    assert len(complete.window) == WINDOW


def test_what_left_the_window_waits_for_the_running_summary():
    document = settled(after(WINDOW + 3))
    assert [item.sequence for item in document.overflow] == [1, 2, 3]
    summarized = settled(document.summarize("they spoke", 3))
    assert (summarized.overflow, summarized.running_summary) == ((), "they spoke")
    assert [item.sequence for item in summarized.exchanges] == [4, 5, 6, 7, 8]
    assert summarized.turn_no == document.turn_no


def test_what_waits_for_the_summary_is_bounded_in_number_and_in_bytes():
    many = settled(after(WINDOW + OVERFLOW + 7))
    assert [item.sequence for item in many.exchanges] == list(range(8, WINDOW + OVERFLOW + 8))
    large = Document()
    for number in range(WINDOW + 12):
        large = committed(large, f"t{number}", "x" * 100_000)
    assert sum(item.size for item in settled(large).overflow) <= OVERFLOW_BYTES


def test_a_page_of_receipts_is_counted_once():
    document = after(WINDOW + 3)
    page = frozenset({"t1", "t2"})
    once = document.settle(published=NOBODY, receipted=page)
    assert once.receipt_pages == 1
    assert once.settle(published=NOBODY, receipted=page).receipt_pages == 1
    assert [item.turn_id for item in once.unreceipted] == ["t3"]


def test_clearing_empties_the_history_but_keeps_counters_and_what_can_not_go_yet():
    cleared = after(4).clear()
    assert (cleared.window, cleared.overflow) == ((), ())
    assert [item.turn_id for item in cleared.outbox] == ["t1", "t2", "t3", "t4"]
    assert (cleared.turn_no, cleared.sequence) == (5, 4)
    assert isinstance(cleared.find("t1"), Exchange)
    assert settled(cleared).exchanges == ()


def test_the_history_goes_on_after_a_clear():
    document = committed(after(3).clear(), "t5", "again")
    assert [item.user_text for item in document.window] == ["again"]
    assert document.sequence == 4


def test_erasing_leaves_counters_and_nothing_that_was_said():
    document = replace(after(7).summarize("they spoke of SECRET", 2), more={"mood": "SECRET"})
    erased = committed(document, "t8", "SECRET").erase(open_turn="t9")
    assert b"SECRET" not in orjson.dumps(erased.dump())
    assert (erased.exchanges, erased.running_summary, erased.sequence, erased.cancelled) == ((), "", 8, ("t9",))
    assert erased.turn_no > document.turn_no


def test_so_many_cancelled_turns_are_remembered():
    document = Document()
    for number in range(CANCELLED + 3):
        document = document.cancel(f"t{number}")
    assert document.cancelled == tuple(f"t{number}" for number in range(3, CANCELLED + 3))


def test_time_never_runs_backwards_within_a_history():
    document = committed(Document(), "t1", now="2026-01-01T00:00:05Z")
    document = committed(document, "t2", now="2026-01-01T00:00:01Z")
    assert [item.occurred_at for item in document.window] == ["2026-01-01T00:00:05Z"] * 2


def test_an_outbox_nobody_takes_fills_up_instead_of_growing_for_ever():
    assert not after(BACKLOG - 1).full
    assert after(BACKLOG).full


@pytest.mark.parametrize("character", ["x", "\x01", "🦊"])
def test_a_document_is_full_before_the_sidecar_would_refuse_it(character: str):
    document = Document()
    while not document.full:
        document = document.commit(
            turn_id=f"t{document.sequence}",
            session_id="s",
            user_text=character * 100_000,
            reply_text=character * 100_000,
            fingerprint="",
            now="2026-01-01T00:00:00Z",
        )
        assert len(orjson.dumps(document.dump())) < 16 * 1024 * 1024
    assert len(orjson.dumps(document.dump())) >= MAX_BYTES
