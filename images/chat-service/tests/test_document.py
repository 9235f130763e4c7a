"""The document: what a commit, a clear and a publication make of it."""

from dataclasses import replace

import orjson
import pytest
from chat_service.document import BACKLOG, RECEIPTS, VERSION, WINDOW, Document, Exchange, Receipt


def committed(document: Document, turn_id: str, text: str = "hello", now: str = "2026-01-01T00:00:00Z") -> Document:
    return document.commit(
        turn_id=turn_id, session_id="s", user_text=text, reply_text="reply", fingerprint="f", now=now
    )


def after(turns: int, *, published: bool = True) -> Document:
    document = Document()
    for number in range(1, turns + 1):
        document = committed(document, f"t{number}", f"message {number}")
        if published:
            document = document.publish(frozenset({f"t{number}"}))
    return document


def test_a_new_user_has_an_empty_document():
    assert Document.load(None) == Document()
    assert Document().window == ()


def test_a_document_survives_being_stored_as_json():
    document = replace(after(7), rev=9, running_summary="earlier")
    assert Document.load(orjson.loads(orjson.dumps(document.dump()))) == document


def test_a_document_of_a_later_release_is_refused_rather_than_overwritten():
    with pytest.raises(ValueError, match=f"reads {VERSION}"):
        Document.load(Document().dump() | {"version": VERSION + 1})


def test_a_commit_appends_the_exchange_and_moves_the_counters():
    document = after(2)
    assert (document.turn_no, document.sequence) == (2, 2)
    assert [item.user_text for item in document.window] == ["message 1", "message 2"]


def test_the_window_holds_the_last_five_exchanges():
    document = after(WINDOW + 3)
    assert [item.sequence for item in document.window] == [4, 5, 6, 7, 8]
    assert len(document.exchanges) == WINDOW


def test_a_turn_that_left_the_window_is_remembered_by_a_receipt_for_a_while():
    document = after(WINDOW + RECEIPTS + 1)
    assert document.find("t1") is None
    assert isinstance(document.find("t2"), Receipt)
    assert isinstance(document.find(f"t{WINDOW + RECEIPTS + 1}"), Exchange)


def test_what_is_not_published_stays_although_it_left_the_window():
    document = after(WINDOW + 3, published=False)
    assert [item.sequence for item in document.outbox] == list(range(1, WINDOW + 4))
    assert len(document.window) == WINDOW
    settled = document.publish(frozenset(f"t{number}" for number in range(1, 9)))
    assert settled.outbox == ()
    assert len(settled.exchanges) == WINDOW


def test_clearing_empties_the_history_but_keeps_counters_receipts_and_what_is_to_be_published():
    document = committed(after(3), "t4")
    cleared = document.clear()
    assert cleared.window == ()
    assert [item.turn_id for item in cleared.outbox] == ["t4"]
    assert (cleared.turn_no, cleared.sequence) == (5, 4)
    assert isinstance(cleared.find("t1"), Receipt)
    assert cleared.publish(frozenset({"t4"})).exchanges == ()


def test_the_history_goes_on_after_a_clear():
    document = committed(after(3).clear(), "t5", "again")
    assert [item.user_text for item in document.window] == ["again"]
    assert document.sequence == 4


def test_time_never_runs_backwards_within_a_history():
    document = committed(Document(), "t1", now="2026-01-01T00:00:05Z")
    document = committed(document, "t2", now="2026-01-01T00:00:01Z")
    assert [item.occurred_at for item in document.window] == ["2026-01-01T00:00:05Z"] * 2


def test_an_outbox_nobody_takes_fills_up_instead_of_growing_for_ever():
    assert not after(BACKLOG - 1, published=False).full
    assert after(BACKLOG, published=False).full
    large = Document()
    for number in range(84):
        large = committed(large, f"t{number}", "x" * 100_000)
    assert large.full
