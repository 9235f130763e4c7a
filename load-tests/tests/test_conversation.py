"""People who chat, against a chat that does not always keep its promises."""

import time
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from .locust_runs import HangUp, Reply, load, serving

QUICK = ("--think-time", "0.02", "--double-share", "0", "--long-share", "0", "--messages", "3")


@pytest.fixture
def chat():
    with serving() as target:
        yield target


def person(seen):
    """The number of the Locust user that speaks."""
    return int(seen.body["user_id"].rpartition("-")[2])


def first_of_each_turn():
    """For each request, whether it is the first try of its turn."""
    keys = set()

    def is_first(seen):
        is_new = seen.key not in keys
        keys.add(seen.key)
        return is_new

    return is_first


@pytest.mark.parametrize("slashes", ["/", "//"])
def test_the_address_of_the_chat_may_end_with_a_slash(chat, tmp_path, slashes):
    run = load(tmp_path, chat.url + slashes, ["Conversation"], *QUICK)
    assert run.failures == 0
    assert {seen.path for seen in chat.seen} == {"/chat/"}


def test_a_person_has_sessions_of_several_messages_each_over_a_connection_of_its_own(chat, tmp_path):
    run = load(tmp_path, chat.url, ["Conversation"], *QUICK, users=3)
    assert run.failures == 0
    assert run.requests("POST turn") == len(chat.seen) > 30
    sessions = defaultdict(list)
    for seen in chat.seen:
        sessions[seen.body["metadata"]["session_id"]].append(seen)
    assert len({seen.body["user_id"] for seen in chat.seen}) == 3
    assert sorted({len(session) for session in list(sessions.values())[:-3]}) == [3]
    assert all(len({seen.connection for seen in session}) == 1 for session in sessions.values())
    assert len({session[0].connection for session in sessions.values()}) == len(sessions)
    for session in sessions.values():
        assert all(after.at - before.at >= 0.02 for before, after in pairwise(session))


def test_long_sessions_and_second_texts_are_counted_by_themselves(chat, tmp_path):
    chat.before = lambda _: time.sleep(0.4 if len(chat.seen) % 2 else 0.2)  # the second may be answered first
    options = ["--think-time", "0.1", "--double-share", "0.5", "--long-share", "0.5", "--long-messages", "8"]
    # So many that one in 30,000 runs has sessions of one kind only.
    run = load(tmp_path, chat.url, ["Conversation"], *options, "--messages", "2", users=16)
    assert run.failures == 0, run.errors  # either order is right
    names = {"POST turn", "POST turn (long session)", "POST turn (second text)"}
    assert set(run.entries) == names
    assert sum(run.entries[name].requests for name in names) <= len(chat.seen)
    by_user = defaultdict(list)
    for seen in chat.seen:
        by_user[seen.body["user_id"]].append(seen.at)
    at_once = sum(after - before < 0.2 for times in by_user.values() for before, after in pairwise(times))
    assert at_once >= run.entries["POST turn (second text)"].requests > 0


def test_a_turn_that_broke_is_tried_again_and_counts_once(chat, tmp_path):
    is_first = first_of_each_turn()
    faults = {
        "retry after 503": Reply(503, {"type": "/problems/draining"}),
        "retry after 504": Reply(504, {"type": "/problems/outcome-unknown"}),
        "retry after 502": Reply(502, "from a gateway"),
        "retry after 409": Reply(409, {"type": "/problems/overtaken"}),
        "retry after no answer": None,
    }

    def after(seen, reply):  # the turn is committed: only its key keeps it from being committed twice
        if not is_first(seen):
            return reply
        fault = list(faults.values())[person(seen)]
        if fault is None:
            raise HangUp
        return fault

    chat.after = after
    run = load(tmp_path, chat.url, ["Conversation"], *QUICK, users=len(faults), seconds=2)
    assert run.failures == 0, run.errors
    assert set(run.entries) == {"POST turn", *(f"RETRY {name}" for name in faults)}
    turns, retries = run.entries["POST turn"], run.requests("RETRY")
    assert 0 <= retries - turns.requests <= len(faults)  # the last ones are cut off by the end of the run
    assert all(run.entries[f"RETRY {name}"].requests > 1 for name in faults)
    assert turns.percentile(1) >= 250  # with the time of both tries, and the wait between them


def test_retries_end_and_wait_as_they_are_told(chat, tmp_path):
    is_first = first_of_each_turn()
    draining = Reply(503, {"type": "/problems/draining"}, [("Retry-After", "0")])
    busy = Reply(503, {"type": "/problems/busy"}, [("Retry-After", "1")])

    def before(seen):
        match person(seen):
            case 0:
                return Reply(422, {"type": "/problems/invalid-field"})  # trying again cannot help
            case 1:
                return draining
        return busy if is_first(seen) else None

    chat.before = before
    run = load(tmp_path, chat.url, ["Conversation"], *QUICK, "--retries", "2", users=3, seconds=2)
    tries = Counter((person(seen), seen.key) for seen in chat.seen)
    assert {tries[turn] for turn in tries if turn[0] == 0} == {1}
    assert {tries[turn] for turn in tries if turn[0] == 1} == {3}
    assert run.errors == {
        f"POST turn: CatchResponseError({error!r})": sum(who == number for who, _ in tries)
        for number, error in enumerate(("422 /problems/invalid-field", "503 /problems/draining"))
    }
    first, second = [seen for seen in chat.seen if person(seen) == 2][:2]
    assert first.key == second.key
    assert 1 <= second.at - first.at < 1.5


def test_no_answer_at_all_is_a_failure_that_says_why(tmp_path):
    with serving() as gone:
        address = gone.url
    run = load(tmp_path, address, ["Conversation"], *QUICK, "--retries", "1", seconds=1)
    assert set(run.errors) == {"POST turn: CatchResponseError('no answer: ConnectionRefusedError')"}


def test_a_broken_promise_is_a_failure(chat, tmp_path):
    broken = {
        "lost turn: the sequence repeats or goes back": {"sequence": 1},
        "out of order: the sequence jumps": {"sequence": 99},
        "the answer has no sequence": {"sequence": None},
        "the answer is another's: user_id": {"user_id": "somebody"},
        "the answer is another's: turn_id": {"turn_id": "another"},
        "the answer is another's: session_id": {"metadata": {"session_id": "another"}},
        "the reply is empty": {"reply": " "},
    }

    def after(seen, reply):
        if reply.body["sequence"] == 3:
            return Reply(200, {**reply.body, **list(broken.values())[person(seen)]})
        return reply

    chat.after = after
    run = load(tmp_path, chat.url, ["Conversation"], *QUICK, users=len(broken))
    # Each once: what comes after is held to what is there now, but for the counts, which the server goes on with.
    again = {"lost turn: the sequence repeats or goes back", "out of order: the sequence jumps"}
    assert {error: run.errors.get(f"POST turn: CatchResponseError({error!r})") for error in broken} == {
        error: 2 if error in again else 1 for error in broken
    }
    assert run.entries["POST turn"].requests > 10 * len(broken)


def test_a_turn_of_unknown_outcome_may_be_missing_or_come_later(chat, tmp_path):
    def before(seen):
        if len(chat.seen) % 5 == 1:
            raise HangUp

    def after(seen, reply):
        if len(chat.seen) % 5 == 3:
            raise HangUp

    chat.before, chat.after = before, after
    run = load(tmp_path, chat.url, ["Conversation"], *QUICK, "--retries", "0")
    turns = run.entries["POST turn"]
    assert 0 < turns.failures < turns.requests
    assert set(run.errors) == {"POST turn: CatchResponseError('no answer: HTTPConnectionClosed')"}
