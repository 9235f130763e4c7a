"""The check after a run: what is read, how long it waits, what the report says, and a run's exit code."""

import itertools
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import pytest
from actor_load.checker import rules, verification
from actor_load.checker.reader import Reader, Sources
from actor_load.checker.seen import Entry, Seen, State, Stored
from actor_load.checker.told import Notes, Reply, Told, Try, Turn
from actor_load.checker.verification import Verification
from actor_load.record import Event, Record

from .histories import System
from .locust_runs import HangUp, distributed, serving
from .locust_runs import Reply as Answer
from .test_runs import command, environment

pytestmark = pytest.mark.timeout(120)  # whole runs of Locust

VIOLATIONS = "What is wrong"
SETTLE_SECONDS = 10


class Clock:
    """Goes on when somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Reads:
    """A reader that gives what a case has; ``at(look)`` may change it for one look."""

    def __init__(self, case, at=lambda seen, look: seen):
        self._case = case
        self._at = at
        self.looks = dict.fromkeys(case.seen, 0)
        self.asked = []

    def read(self, turns, asked):
        user_id = turns[0].user_id
        self.looks[user_id] += 1
        self.asked += asked
        return self._at(self._case.seen[user_id], self.looks[user_id])


def second(number, seconds, outcome="answered", tries=1):
    """A turn that is due in this second."""
    reply = Reply("yes", "ann-1", str(number), number) if outcome == "answered" else None
    due = float(number)
    broken = [Try(due, due, "unknown", "no answer")] * (tries - 1)
    return Turn("ann", str(number), "ann-1", "hi", due, (*broken, Try(due, due + seconds, outcome, "", reply)))


def told(*turns):
    notes, found = Notes(), Told()
    for turn in turns:
        notes.turn(turn)
    found.add(notes.take())
    return found


@pytest.fixture
def case():
    system = System()
    for fate in ("answered", "refused", "replayed", "stored", "answered"):
        system.turn("ann", 1, fate)
    system.turn("bob", 1, "answered")
    return system.rest()


def verified(case, reads):
    clock = Clock()
    found = verification.verify(told(*case.turns), reads, settle_seconds=SETTLE_SECONDS, clock=clock, sleep=clock.sleep)
    return found, verification.section(told(*case.turns), found, started=0, ended=100, events=[])


def without_the_last(seen):
    return replace(seen, transcripts={session: entries[:-2] for session, entries in seen.transcripts.items()})


def test_what_is_as_it_should_be_is_read_once(case):
    reads = Reads(case)
    found, section = verified(case, reads)
    assert reads.looks == {"ann": 1, "bob": 1}
    assert (found.checked, found.not_checked, found.violations) == (6, 0, [])
    assert {check.name for check in section.checks} == {*rules.RULES, section.checks[0].name} - {rules.ALONE}
    assert all(check.passed for check in section.checks)
    assert section.tables == []


def test_events_that_are_under_way_are_waited_for_and_nobody_else_is_read_again(case):
    def late(seen, look):
        return without_the_last(seen) if look < 4 and seen is case.seen["ann"] else seen

    reads = Reads(case, late)
    found, _ = verified(case, reads)
    assert reads.looks == {"ann": 4, "bob": 1}
    assert (found.violations, found.complete_seconds) == ([], 3)


def test_what_never_comes_is_a_violation_each_with_a_row_and_ends_the_wait(case):
    found, section = verified(case, Reads(case, lambda seen, _: without_the_last(seen)))
    assert found.complete_seconds == SETTLE_SECONDS
    (table,) = section.tables
    assert table.title == VIOLATIONS
    kept = [row for row in table.rows if row[0] == rules.KEPT]
    assert sorted(row[1] for row in kept) == ["ann", "bob"]
    failed = {check.name: check.detail for check in section.checks if not check.passed}
    assert failed.keys() == {row[0] for row in table.rows}
    assert "2 violations" in failed[rules.KEPT]


def test_whoever_is_told_to_hurry_looks_once(case):
    reads = Reads(case, lambda seen, _: without_the_last(seen))
    found = verification.verify(told(*case.turns), reads, settle_seconds=SETTLE_SECONDS, hurry=lambda: True)
    assert set(reads.looks.values()) == {1}
    assert found.violations


def test_what_can_not_be_read_is_tried_again_and_at_the_end_no_turn_of_it_counts_as_checked(case):
    def broken(seen, _):
        return Seen(unread=["a transcript can't be read: 503"]) if seen is case.seen["ann"] else seen

    reads = Reads(case, broken)
    found, section = verified(case, reads)
    assert reads.looks["ann"] == SETTLE_SECONDS + 1
    assert (found.checked, found.not_checked) == (1, 5)
    (failed,) = [check for check in section.checks if not check.passed]
    assert failed.detail == "1 of 6 turns (16.7 %); a transcript can't be read: 503, 1 times"


def test_a_run_of_which_nothing_was_told_has_not_been_checked():
    section = verification.section(Told(), Verification(), started=0, ended=1, events=[])
    assert [check.passed for check in section.checks] == [False]


def test_of_turns_that_went_well_a_part_is_asked_about_and_of_the_others_each(monkeypatch):
    monkeypatch.setattr(verification, "MOST_ASKED", 10)
    system = System()
    for number in range(100):
        system.turn("ann", 1, "replayed" if number % 20 == 0 else "refused" if number % 20 == 1 else "answered")
    case = system.rest()
    reads = Reads(case)
    verified(case, reads)
    hard = {turn.turn_id for turn in case.turns if len(turn.tries) > 1 or turn.outcome != "answered"}
    assert hard < set(reads.asked)
    assert len(set(reads.asked) - hard) == 10  # every ninth of 90


def test_each_change_has_a_row_with_what_it_cost():
    turns = [second(0, 0.1), second(1, 0.1), second(2, 5.0, tries=2), second(3, 4.1), second(4, 0.1, "refused")]
    turns.append(second(9, 0.1))
    events = [Event(at=1.5, kind="action", text="a pod is killed"), Event(at=3, kind="settled", text="settled")]
    (table,) = verification.section(told(*turns), Verification(), started=0, ended=10, events=events).tables
    assert dict(zip(table.columns, table.rows[0], strict=True)) == {
        "change": "a pod is killed",
        "at": "0:01",
        "turns due": "4",
        "refused": "1",
        "unknown": "0",
        "tried again": "1",
        "longest without an answer for anybody": "5.00 s",
        "for one user": "5.00 s",
        "answered at once again after": "7.5 s",
    }


def test_how_it_was_before_a_change_is_told_by_the_rest_before_it_and_not_by_the_change_before():
    turns = [*(second(number, 3.0) for number in range(5)), *(second(number, 0.1) for number in range(5, 15))]
    turns += [second(15, 2.0), second(16, 0.1)]
    events = [Event(at=0, kind="action", text="a slow one"), Event(at=14.5, kind="action", text="another")]
    (table,) = verification.section(told(*turns), Verification(), started=0, ended=20, events=events).tables
    assert [row[-1] for row in table.rows] == ["-", "1.5 s"]


# What is read over HTTP.


class Services:
    """Answers as chat-service, agent-memory-service and a sidecar do, to a reader."""

    def __init__(self):
        self.paths = []
        self.turns = [Stored(f"t{number}", number, "s", f"text {number}", f"reply {number}") for number in range(1, 8)]

    def found(self, path):
        """GET."""
        self.paths.append(path)
        if path == "/chat/ann%40home/turns/gone":
            return Answer(504, {"type": "/problems/key-expired"})
        if path == "/chat/ann%40home/turns/t1":
            body = {"reply": "reply 1", "sequence": 1, "metadata": {"session_id": "s"}}
            return Answer(200, {"turn_id": "t1", "status": "committed", "reply": body})
        if path.startswith("/chat/"):
            return Answer(200, {"turn_id": "t", "status": "not_committed"})
        before = int(path.rpartition("before=")[2]) if "before=" in path else 99
        turns = [turn for turn in self.turns if turn.sequence < before]
        page = turns[-3:]
        entries = [
            {"role": role, "content": text, "user_id": "ann@home", "turn_id": turn.turn_id, "sequence": turn.sequence}
            for turn in page
            for role, text in (("user", turn.text), ("assistant", turn.reply))
        ]
        return Answer(200, {"history": entries, "before": page[0].sequence if len(turns) > 3 else None})

    def answer(self, seen):
        """POST."""
        self.paths.append(seen.path)
        return Answer(
            200,
            [
                {
                    "turn_id": turn.turn_id,
                    "sequence": turn.sequence,
                    "session_id": turn.session_id,
                    "user_text": turn.text,
                    "reply_text": turn.reply,
                }
                for turn in self.turns[-5:]
            ],
        )


@contextmanager
def answering(found=None):
    """The services on a loopback port; ``found`` answers instead."""
    with serving() as target:
        services = Services()
        target.found, target.answer = found or services.found, services.answer
        yield target.url, services


SENT = [Turn("ann@home", key, "s", "hello", 0.0, ()) for key in ("t1", "t2", "gone")]


def test_a_user_is_read_page_by_page_from_all_services():
    with answering() as (url, services):
        seen = Reader(Sources(url, url, url)).read(SENT, ["t1", "t2", "gone"])
    assert seen.unread == []
    assert seen.states == {"t1": State("committed", "reply 1", "s", 1), "t2": State("not_committed")}
    assert [entry.sequence for entry in seen.transcripts["s"]] == [n for n in range(1, 8) for _ in range(2)]
    assert seen.transcripts["s"][0] == Entry("user", "text 1", "ann@home", "t1", 1)
    assert seen.history == services.turns[-5:]
    assert "/v1.0/actors/UserSessionActor/ann%40home/method/GetConversationHistory" in services.paths


def test_what_has_no_address_is_not_read_and_nothing_is_missing():
    with answering() as (url, services):
        seen = Reader(Sources(url)).read(SENT, ["t2"])
    assert (seen.transcripts, seen.history, seen.unread) == ({}, None, [])
    assert len(services.paths) == 1


@pytest.mark.parametrize(
    ("answer", "why"),
    [(Answer(503, {}), "503"), (Answer(200, ["no object"]), "AttributeError"), (Answer(200, {}), "KeyError")],
)
def test_an_answer_that_is_of_no_use_is_told(answer, why):
    with answering(lambda _: answer) as (url, _):
        seen = Reader(Sources(url)).read(SENT, ["t1"])
    assert seen.unread == [f"the outcome of a turn can't be read: {why}"]
    assert seen.states == {}


def test_a_service_that_is_gone_is_told():
    with answering() as (url, _):
        pass
    seen = Reader(Sources(url, url, url)).read(SENT, ["t1"])
    assert [line.partition(" can't")[0] for line in seen.unread] == [
        "the outcome of a turn",
        "a transcript",
        "a history",
    ]


# Whole runs.


@pytest.fixture
def chat():
    """A chat of which some tries break, before and after the commit, and some are refused."""
    with serving() as target:
        keys = {}

        def number(seen):
            return keys.setdefault(seen.key, len(keys)) if seen.key else 0  # calls of actors have none

        def before(seen):
            if number(seen) % 7 == 3:
                return Answer(503, {"type": "/problems/draining"}, [("Retry-After", "0")])
            if number(seen) % 7 == 4:
                raise HangUp
            return None

        def after(seen, _):
            if number(seen) % 7 == 5:
                raise HangUp

        target.before, target.after = before, after
        yield target


def run(chat, folder, *options):
    line = command(chat.url, "--headless", "--only-summary", "--placement", "off", "-t", "3s", "-r", 100, "-u", 4)
    line += ["Conversation", "--think-time", "0.05", "--retries", "1", "--verify", "on", "--report", str(folder)]
    line += ["--memory-host", chat.url, "--sidecar", chat.url, "--verify-seconds", "1", *map(str, options)]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    (section,) = Record.model_validate_json((folder / "report.json").read_bytes()).sections
    return done, section


def figures(section):
    return {figure.name: figure.value for figure in section.figures}


@pytest.mark.parametrize("processes", [(), distributed(2)], ids=["local", "two workers"])
def test_a_run_of_a_chat_that_keeps_its_promises_passes_the_check(chat, tmp_path, processes):
    done, section = run(chat, tmp_path, *processes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(check.passed for check in section.checks)
    assert rules.ALONE in {check.name for check in section.checks}
    found = figures(section)
    sent = len({seen.key for seen in chat.seen if seen.key})
    assert int(found["turns checked"]) == sent > 20
    assert int(found["of these unknown"]) > 0
    assert int(found["failed"]) > int(found["of these unknown"])


def test_a_chat_that_loses_a_turn_fails_the_run_and_the_report_says_which(chat, tmp_path):
    chat.kept = lambda _, turns: [turn for turn in turns if turn["sequence"] != 2]
    done, section = run(chat, tmp_path)
    assert done.returncode == 1
    (table,) = section.tables
    assert table.title == VIOLATIONS
    lost = [row for row in table.rows if row[0] == rules.KEPT]
    assert lost
    keys = {seen.key for seen in chat.seen}
    assert all(row[2] in keys for row in lost)
    assert f"FAILED {section.title}: {rules.KEPT}" in done.stdout


def test_an_actor_that_is_active_twice_fails_the_run(tmp_path):
    hosts = itertools.cycle(["pod-0", "pod-1"])
    with serving() as target:
        target.host_of = lambda actor_id: next(hosts) if actor_id.endswith("hot-0") else "pod-0"
        line = command(target.url, "--headless", "--only-summary", "--placement", "off", "-t", "2s", "-u", 1)
        line += ["HotActors", "--hot-actors", "1", "--sidecar", target.url, "--verify", "--report", str(tmp_path)]
        done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    (section,) = Record.model_validate_json((tmp_path / "report.json").read_bytes()).sections
    ((rule, actor_id, _, words),) = section.tables[0].rows
    assert rule == rules.ALONE
    assert actor_id.endswith("-hot-0")
    assert "pod-0" in words
    assert "pod-1" in words


def test_a_run_that_is_not_to_be_checked_reads_nothing(chat, tmp_path):
    asked = []
    chat.found = lambda path: asked.append(path) or Answer(404, {})
    line = command(chat.url, "--headless", "--only-summary", "--placement", "off", "-t", "2s", "-u", 1, "Conversation")
    line += ["--report", str(tmp_path), "--memory-host", chat.url]
    subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert Record.model_validate_json((tmp_path / "report.json").read_bytes()).sections == []
    assert asked == []
