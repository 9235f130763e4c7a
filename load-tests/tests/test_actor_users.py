"""Load on actors, against a sidecar that knows of one actor type."""

import subprocess
import time
from collections import Counter

import pytest
from actor_load.placement.rendezvous import Rendezvous
from actor_load.placement.ring import Ring

from .locust_runs import Reply, command, distributed, load, serving

TABLE = {f"10.0.0.{number}:50002": f"pod-{number}" for number in range(3)}


@pytest.fixture
def sidecar():
    with serving() as target:
        yield target


def at(target):
    return ["--sidecar", target.url]


def test_hot_actors_are_few_and_the_same_on_all_workers(sidecar, tmp_path):
    options = [*at(sidecar), "--hot-actors", "3", *distributed(2)]
    run = load(tmp_path, sidecar.url, ["HotActors"], *options, users=4)
    assert run.failures == 0
    assert set(run.entries) == {"POST BeginTurn (hot)"}
    assert len(set(sidecar.ids())) == 3
    assert len(sidecar.seen) > 50


def test_cold_actors_are_called_round_and_round(sidecar, tmp_path):
    run = load(tmp_path, sidecar.url, ["ColdActors"], *at(sidecar), "--actors", "40", users=2)
    assert run.failures == 0
    calls = Counter(sidecar.ids())
    assert len(calls) == 40
    assert max(calls.values()) - min(calls.values()) <= 1
    assert min(calls.values()) > 1


def test_reads_and_writes_come_in_the_share_that_was_asked_for(sidecar, tmp_path):
    options = [*at(sidecar), "--actors", "20", "--write-share", "0.5"]
    run = load(tmp_path, sidecar.url, ["ReadsAndWrites"], *options, users=4)
    assert run.failures == 0
    reads, writes = run.entries["POST GetConversationHistory"].requests, run.entries["POST AddMessage"].requests
    assert writes / (reads + writes) == pytest.approx(0.5, abs=0.15)
    turns = [seen.body["turn_id"] for seen in sidecar.seen if seen.path.endswith("AddMessage")]
    assert len(turns) == len(set(turns))


def test_a_write_that_is_gone_is_a_failure(sidecar, tmp_path):
    sidecar.after = lambda seen, reply: Reply(200, []) if seen.path.endswith("History") else reply
    options = [*at(sidecar), "--actors", "2", "--write-share", "0.5"]
    run = load(tmp_path, sidecar.url, ["ReadsAndWrites"], *options, seconds=1)
    lost = "lost write: an older history than one that was answered before"
    assert set(run.errors) == {f"POST GetConversationHistory: CatchResponseError({lost!r})"}


def test_failures_name_the_status_and_what_dapr_says(sidecar, tmp_path):
    wrong = [
        Reply(500, {"errorCode": "ERR_ACTOR_INVOKE_METHOD", "message": "failed to invoke"}),
        Reply(403, {"errorCode": "ERR_PERMISSION_DENIED"}),
        Reply(200, {"status": "invalid"}),
        Reply(200, {"status": "granted", "activation_id": "a"}),
        Reply(200, 5),
    ]
    sidecar.before = lambda _: wrong[len(sidecar.seen) % len(wrong)]
    run = load(tmp_path, sidecar.url, ["ColdActors"], *at(sidecar), seconds=1)
    assert set(run.errors) == {
        f"POST BeginTurn (cold): CatchResponseError({error!r})"
        for error in (
            "500 ERR_ACTOR_INVOKE_METHOD",
            "403 ERR_PERMISSION_DENIED",
            "refused: invalid",
            "the answer names no host",
            "the answer is no object",
        )
    }


def test_a_storm_activates_each_actor_and_its_users_stop(sidecar, tmp_path):
    failed = Counter()

    def before(seen):
        failed[seen.path] += 1
        return Reply(500, {"errorCode": "ERR_ACTOR_NO_ADDRESS"}) if failed[seen.path] == 1 else None

    sidecar.before = before  # each fails once, and is tried again
    code = """
from actor_load.users import walk
walk.PAUSE_SECONDS = 0.1

@events.spawning_complete.add_listener
def end_when_all_users_have_stopped(**_):
    gevent.spawn(watch)

def watch():
    while environments[0].runner.user_count:
        gevent.sleep(0.05)
    found["ended"] = True
    environments[0].runner.quit()

environments = []

@events.init.add_listener
def keep(environment, **_):
    environments.append(environment)
"""
    options = [*at(sidecar), "--actors", "50"]
    run = load(tmp_path, sidecar.url, ["ActivationStorm"], *options, users=4, seconds=20, code=code)
    assert run.found["ended"]
    entry = run.entries["POST BeginTurn"]
    assert (entry.requests, entry.failures) == (100, 50)
    assert set(Counter(sidecar.ids()).values()) == {2}


def test_without_a_sidecar_the_test_ends_and_says_so(sidecar, tmp_path):
    line, environment = command(tmp_path, sidecar.url, ["HotActors"], seconds=20)
    said = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=15, check=False)
    assert said.returncode == 2
    assert "HotActors calls actors through a Dapr sidecar, and there is none" in said.stderr
    assert not sidecar.seen


ROUNDS = """
from actor_load.users import walk
walk.PAUSE_SECONDS = 0.05
walk.TRIES = 3

def play(environment, rounds, plan):
    while environment.runner.state != "running":
        gevent.sleep(0.05)
    found["rounds"] = []
    for count, table in plan:
        number = rounds.begin(count, table)
        while (result := rounds.result(number)) is None:
            gevent.sleep(0.05)
        found["rounds"].append(vars(result))
    environment.runner.quit()

@events.init.add_listener
def on_init_of_rounds(environment, **_):
    if not isinstance(environment.runner, WorkerRunner):
        gevent.spawn(play, environment, Rounds(environment), PLAN)
"""


def test_where_the_scheduler_places_a_round_is_held_against_rendezvous(sidecar, tmp_path):
    count, found = 60, Rendezvous(TABLE)
    sidecar.host_of = lambda actor_id: TABLE[found.host_of(actor_id)]
    code = ROUNDS.replace("rounds.begin(count, table)", 'rounds.begin(count, table, placer="scheduler")')
    code = code.replace("PLAN", repr([(count, TABLE)]))
    run = load(tmp_path, sidecar.url, ["Visits"], *at(sidecar), users=8, seconds=20, code=code)
    (only,) = run.found["rounds"]
    assert (only["count"], only["failed"], only["mismatched"]) == (count, 0, 0)
    assert only["hosts"] == Counter(TABLE[found.host_of(actor_id)] for actor_id in set(sidecar.ids()))
    assert any(found.host_of(actor_id) != Ring(TABLE).host_of(actor_id) for actor_id in sidecar.ids())


@pytest.mark.parametrize("processes", [None, 2])
def test_rounds_of_visits_tell_where_actors_are_and_what_moved(sidecar, tmp_path, processes):
    count = 120
    two, three = dict(list(TABLE.items())[:2]), TABLE
    before, after = Ring(two), Ring(three)
    never, strays = {7}, {11, 12}
    plan = [(count, two), (count, three), (count, {})]
    answered = Counter()

    def number(actor_id):
        return int(actor_id.rpartition("-")[2])

    def where(actor_id):  # in the second round the third pod is there; the third finds all as it was
        answered[actor_id] += 1
        if answered[actor_id] > 1 and number(actor_id) in strays:
            return "pod-elsewhere"
        ring, table = (before, two) if answered[actor_id] == 1 else (after, three)
        return table[ring.host_of(actor_id)]

    def fail(seen):
        if number(seen.path.split("/")[4]) in never:
            return Reply(500, {"errorCode": "ERR_ACTOR_INVOKE_METHOD"})
        return None

    sidecar.host_of, sidecar.before = where, fail
    code = ROUNDS.replace("PLAN", repr(plan))
    options = [*at(sidecar), *(distributed(processes) if processes else [])]
    run = load(tmp_path, sidecar.url, ["Visits"], *options, users=8, seconds=20, code=code)

    first, second, third = run.found["rounds"]
    ids = [actor_id for actor_id in set(sidecar.ids()) if number(actor_id) not in never]
    assert len(ids) == count - 1
    assert (first["count"], first["failed"], first["mismatched"], first["moved"]) == (count, 1, 0, 0)
    assert first["hosts"] == Counter(two[before.host_of(actor_id)] for actor_id in ids)
    assert first["new_activations"] == count - 1

    moving = {actor_id for actor_id in ids if two[before.host_of(actor_id)] != three[after.host_of(actor_id)]}
    stray = {actor_id for actor_id in ids if number(actor_id) in strays}
    assert second["failed"] == 1
    assert second["moved_by_ring"] == len(moving) > 10
    assert second["moved"] == second["new_activations"] == len(moving | stray)
    assert second["mismatched"] == len(stray)
    assert sorted(second["mismatches"]) == sorted(
        [actor_id, three[after.host_of(actor_id)], "pod-elsewhere"] for actor_id in stray
    )
    assert (third["failed"], third["moved"], third["moved_by_ring"], third["new_activations"]) == (1, 0, 0, 0)
    assert third["mismatched"] == 0  # nothing to compare with
    # Each once in a round, and what failed as often as it is tried.
    calls = Counter(map(number, sidecar.ids()))
    assert {number: calls.pop(number) for number in never} == dict.fromkeys(never, 3 * 3)
    assert set(calls.values()) == {3}


def test_the_share_of_a_worker_that_is_gone_has_failed(sidecar, tmp_path):
    code = (
        ROUNDS.replace("PLAN", repr([(100, {})]))
        + """
@events.spawning_complete.add_listener
def die(**_):
    if share := next(iter(ids._shares.values()), None):
        if share.numbers(100).start == 1:
            os.kill(os.getpid(), 9)
"""
    )
    run = load(tmp_path, sidecar.url, ["Visits"], *at(sidecar), *distributed(2), users=4, seconds=25, code=code)
    assert [(found["count"], found["failed"]) for found in run.found["rounds"]] == [(100, 50)]


def test_beside_other_load_a_round_calls_few_actors_at_once(sidecar, tmp_path):
    under_way, most = Counter(), []

    def note(_):
        under_way["calls"] += 1
        most.append(under_way["calls"])
        time.sleep(0.01)

    def forget(*_):
        under_way["calls"] -= 1

    sidecar.before, sidecar.after = note, forget
    code = ROUNDS.replace("rounds.begin(count, table)", "rounds.begin(count, table, 2)").replace("PLAN", "[(60, {})]")
    run = load(tmp_path, sidecar.url, ["Visits"], *at(sidecar), users=8, seconds=20, code=code)

    (found,) = run.found["rounds"]
    assert (found["count"], found["failed"]) == (60, 0)
    assert max(most) == 2
