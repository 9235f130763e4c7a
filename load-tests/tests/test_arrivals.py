"""Open arrivals: turns come when they are due, whatever the chat does."""

import time
from collections import Counter
from itertools import pairwise
from statistics import median

import pytest

from .locust_runs import load, serving

STALL_SECONDS = 1.0
LATE = 8
"""Turns at 40 a second that a busy machine may hold up for a moment, and send then."""


@pytest.fixture
def chat():
    with serving() as target:
        yield target


def stall_once(target, after_seconds):
    """All requests of one second wait for its end, as when a host is lost."""
    begin = []

    def before(seen):
        if not begin:
            begin.append(seen.at + after_seconds)
        if begin[0] <= seen.at < begin[0] + STALL_SECONDS:
            time.sleep(begin[0] + STALL_SECONDS - seen.at)

    target.before = before
    return begin


def test_turns_come_evenly_from_many_people_over_new_connections_now_and_then(chat, tmp_path):
    code = "\nfrom actor_load.users import arrivals\narrivals.CONNECTION_SECONDS = 0.3\n"
    run = load(tmp_path, chat.url, ["Arrivals"], "--arrival-rate", "20", users=2, seconds=2, code=code)
    assert run.failures == 0
    turns = run.entries["POST turn (due)"]
    assert turns.requests == len(chat.seen) == len({seen.body["user_id"] for seen in chat.seen})
    # Those that a busy machine sends late are made up for: most still come by one timetable of 40 a second.
    delays = [seen.at - number / 40 for number, seen in enumerate(chat.seen)]
    assert len(delays) == pytest.approx(80, abs=20)
    assert sum(abs(delay - median(delays)) < 0.1 for delay in delays) >= 0.75 * len(delays)
    assert len({seen.connection for seen in chat.seen}) >= 8


def test_people_speak_in_turn_when_they_are_few(chat, tmp_path):
    run = load(tmp_path, chat.url, ["Arrivals"], "--arrival-rate", "20", "--arrival-users", "5", users=2)
    assert run.failures == 0, run.errors  # their sequences are checked, too
    turns = Counter(seen.body["user_id"] for seen in chat.seen)
    assert len(turns) == 5
    assert max(turns.values()) - min(turns.values()) <= 1


def test_a_stall_is_seen_by_arrivals_and_hidden_by_a_closed_loop(chat, tmp_path):
    begin = stall_once(chat, 0.5)
    opened = load(tmp_path, chat.url, ["Arrivals"], "--arrival-rate", "40", seconds=2.5)
    assert opened.failures == 0
    due = opened.entries["POST turn (due)"]
    # The stall held up a quarter of the turns, for half a second on the average.
    assert due.percentile(95) > 600
    assert due.percentile(50) < 100
    # The rate went on meanwhile.
    assert sum(begin[0] <= seen.at < begin[0] + STALL_SECONDS for seen in chat.seen) == pytest.approx(40, abs=LATE)

    begin.clear()
    options = ["--think-time", "0", "--double-share", "0", "--long-share", "0", "--messages", "1000"]
    closed = load(tmp_path, chat.url, ["Conversation"], *options, seconds=2.5)
    turns = closed.entries["POST turn"]
    assert turns.requests > due.requests
    assert max(turns.latency_ms) > 900  # it was there
    assert turns.percentile(95) < 100
    assert turns.percentile(99) < 100


def test_a_generator_that_comes_late_counts_from_when_turns_were_due(chat, tmp_path):
    code = """
import time
import gevent

def hold_up():  # Locust has patched sleep: this is work that lets nothing else run
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end:
        pass

@events.spawning_complete.add_listener
def on_spawned(**_):
    gevent.spawn_later(0.5, hold_up)
"""
    run = load(tmp_path, chat.url, ["Arrivals"], "--arrival-rate", "40", seconds=2, code=code)
    assert run.failures == 0
    times = [seen.at for seen in chat.seen]
    gap = max(after - before for before, after in pairwise(times))
    assert gap > 0.4
    due = run.entries["POST turn (due)"]
    # None was left out, and those that the generator sent late are late.
    assert due.requests == pytest.approx(40 * (times[-1] - times[0]), abs=LATE)
    assert sum(count for latency, count in due.latency_ms.items() if latency > 200) >= 8


def test_turns_that_cannot_be_sent_have_failed_and_so_have_those_without_an_answer_at_the_end(chat, tmp_path):
    chat.before = lambda seen: time.sleep(30)
    code = "\nfrom actor_load.users import arrivals\narrivals.IN_FLIGHT = 10\n"
    run = load(tmp_path, chat.url, ["Arrivals"], "--arrival-rate", "20", "--stop-timeout", "1", code=code)
    due = run.entries["POST turn (due)"]
    assert due.failures == due.requests == pytest.approx(20, abs=5)
    assert run.errors["POST turn (due): CatchResponseError('no answer when the run ended')"] == 10
    assert sum("not sent" in error for error in run.errors) == 1
    assert due.percentile(50) > 200  # none of them counts as quick


def test_turns_in_flight_finish_when_the_run_ends(chat, tmp_path):
    chat.before = lambda seen: time.sleep(0.8)
    run = load(tmp_path, chat.url, ["Arrivals"], "--arrival-rate", "20")
    assert run.failures == 0
    assert run.entries["POST turn (due)"].requests == len(chat.seen)
