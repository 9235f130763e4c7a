"""The line: who may take the next turn. Time is handed in."""

from typing import Any

from chat_service.line import GATHER_SECONDS, SILENT_SECONDS, Lease, Line

OLD = 100.0
"""Long after the activation."""


def line(limit: int = 64) -> Line:
    return Line(lease_seconds=5.0, limit=limit, now=0.0)


def ask(line: Line, turn_id: str, now: float = OLD, **more: Any) -> Lease | int | str:
    options = {"arrived_at": now, "waits": True, "requeued": False, "stays": False} | more
    return line.ask(turn_id, "claim", now=now, **options)


def granted(line: Line, turn_id: str, now: float = OLD, **more: Any) -> Lease:
    lease = ask(line, turn_id, now, **more)
    assert isinstance(lease, Lease)
    return lease


def test_the_first_is_granted_and_the_others_are_told_their_place():
    turns = line()
    granted(turns, "a")
    assert [ask(turns, turn_id, OLD + number) for number, turn_id in enumerate("bcd", 1)] == [1, 2, 3]


def test_they_go_in_the_order_in_which_they_arrived_not_in_which_they_ask():
    turns = line()
    granted(turns, "a")
    assert ask(turns, "late", arrived_at=20.0) == 1
    assert ask(turns, "early", arrived_at=10.0) == 1
    turns.finish("a")
    assert ask(turns, "late") == 1
    granted(turns, "early")


def test_who_is_woken_here_keeps_the_place_without_asking():
    turns = line()
    granted(turns, "a")
    ask(turns, "b", arrived_at=1.0, stays=True)
    turns.finish("a")
    assert ask(turns, "c", OLD + 10 * SILENT_SECONDS) == 1


def test_who_waits_elsewhere_and_falls_silent_loses_the_place():
    turns = line()
    granted(turns, "a")
    ask(turns, "gone", arrived_at=1.0)
    turns.finish("a")
    assert ask(turns, "b", OLD + SILENT_SECONDS / 2) == 1
    granted(turns, "b", OLD + SILENT_SECONDS * 1.1)


def test_who_asks_again_keeps_the_place():
    turns = line()
    granted(turns, "a")
    for step in range(5):
        turns.renew("a", turns.lease.token if turns.lease else "", OLD + step)
        assert ask(turns, "b", OLD + step, arrived_at=1.0) == 1
    turns.finish("a")
    granted(turns, "b", OLD + 5)


def test_a_lease_that_nobody_renews_falls_to_the_next():
    turns = line()
    granted(turns, "a")
    assert ask(turns, "b", OLD + 4.9) == 1
    granted(turns, "b", OLD + 5.1)


def test_a_renewed_lease_lasts():
    turns = line()
    lease = granted(turns, "a")
    assert turns.renew("a", lease.token, OLD + 4)
    assert ask(turns, "b", OLD + 8) == 1
    assert not turns.renew("a", "of another", OLD + 8)


def test_a_call_that_is_delivered_twice_is_granted_once():
    turns = line()
    assert granted(turns, "a").token == granted(turns, "a").token
    assert turns.ask("a", "another claim", arrived_at=1, waits=True, requeued=False, stays=False, now=OLD) == 1


def test_only_so_many_wait():
    turns = line(limit=2)
    granted(turns, "a")
    assert [ask(turns, turn_id) for turn_id in "bcd"] == [1, 2, "crowded"]
    assert ask(turns, "b") == 1


def test_who_does_not_wait_takes_no_place_and_is_in_nobodys_way():
    turns = line()
    granted(turns, "a")
    assert ask(turns, "b", waits=False) == 1
    turns.finish("a")
    granted(turns, "c", waits=False)


def test_who_leaves_gives_up_the_lease_or_the_place():
    turns = line()
    lease = granted(turns, "a")
    assert not turns.leave("a", "of another", "")
    assert turns.leave("a", lease.token, "")
    granted(turns, "b")
    ask(turns, "c")
    assert turns.leave("c", "", "claim")
    assert not turns.leave("c", "", "claim")
    assert turns.order() == []


def test_who_was_not_told_the_lease_gives_it_up_by_the_claim():
    turns = line()
    granted(turns, "a")
    assert turns.leave("a", "", "claim")
    granted(turns, "b")


def test_who_leaves_does_not_take_away_the_place_of_another_request_under_the_same_key():
    turns = line()
    granted(turns, "a")
    ask(turns, "b", arrived_at=1.0)
    assert not turns.leave("b", "", "another claim")
    assert turns.order() == ["b"]
    assert turns.leave("b", "", "claim")


def test_those_who_waited_at_another_activation_come_in_order_at_a_new_one():
    turns = Line(lease_seconds=5.0, limit=64, now=OLD)
    assert ask(turns, "second", arrived_at=2.0, requeued=True) == 1
    assert ask(turns, "first", arrived_at=1.0, requeued=True) == 1
    assert ask(turns, "second", OLD + 1.1 * GATHER_SECONDS, arrived_at=2.0, requeued=True) == 1
    granted(turns, "first", OLD + 1.1 * GATHER_SECONDS, arrived_at=1.0, requeued=True)


def test_a_first_message_does_not_gather():
    granted(Line(lease_seconds=5.0, limit=64, now=OLD), "a")


def test_a_turns_place_is_told():
    turns = line()
    granted(turns, "a")
    ask(turns, "b", arrived_at=1.0)
    ask(turns, "c", arrived_at=2.0)
    assert [turns.place(turn_id, OLD) for turn_id in "abcd"] == [0, 1, 2, None]


def test_it_is_told_when_the_line_may_move_by_itself():
    turns = line()
    granted(turns, "a")
    ask(turns, "b", OLD + 1)
    assert turns.changes_in(OLD + 1) == 4.0
    turns.finish("a")
    assert turns.changes_in(OLD + 1) == SILENT_SECONDS
