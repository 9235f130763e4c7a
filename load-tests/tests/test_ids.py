"""Ids are shared out so that nothing is called twice and nothing is left out."""

import subprocess
import sys
from collections import Counter

import pytest

from .locust_runs import LOAD_TESTS, command, distributed, found, free_port, load, serving


@pytest.fixture
def target():
    with serving() as target:
        yield target


def test_the_actors_of_a_run_are_shared_out_completely_and_none_twice(target, tmp_path):
    options = ["--sidecar", target.url, "--actors", "100", *distributed(3)]
    run = load(tmp_path, target.url, ["ActivationStorm"], *options, users=6)
    assert run.failures == 0
    prefixes = {actor_id.rpartition("-")[0] for actor_id in target.ids()}
    assert len(prefixes) == 1
    assert Counter(target.ids()) == {f"{prefix}-{number}": 1 for prefix in prefixes for number in range(100)}


def test_a_worker_that_comes_during_the_run_speaks_for_people_of_its_own(target, tmp_path):
    port = free_port()
    quick = ["--think-time", "0.05", "--double-share", "0"]
    bind = ["--master", "--expect-workers", "1", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
    line, environment = command(tmp_path, target.url, ["Conversation"], *quick, *bind, users=4, seconds=4)
    join = ["-m", "locust", "-f", tmp_path / "locustfile.py", "--worker", "--master-port", port]
    worker = [str(part) for part in (sys.executable, *join)]
    more = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with (
        subprocess.Popen(line, **more) as master,
        subprocess.Popen(worker, **more) as first,
    ):
        while len(target.seen) < 4:
            assert master.poll() is None, master.communicate()[0]
        early = {seen.body["user_id"] for seen in target.seen}
        with subprocess.Popen(worker, **more) as second:
            said = [process.communicate(timeout=30)[0] for process in (second, first, master)]
            assert (second.returncode, first.returncode) == (0, 0), said
    run = found(tmp_path, master.returncode, "\n".join(said))
    assert run.failures == 0, run.errors  # nobody's turns are in the sequence of another
    people = {seen.body["user_id"] for seen in target.seen}
    workers = Counter(user_id.split("-")[-2] for user_id in people)
    assert len(early) == 4
    assert set(workers) == {"0", "1"}, said


def test_another_run_of_the_same_locust_has_other_ids(target, tmp_path):
    code = """
@events.spawning_complete.add_listener
def on_spawned(**_):
    environment = started[0]
    if len(started) == 1:
        def again():
            gevent.sleep(0.5)
            environment.runner.stop()
            started.append(environment)
            environment.runner.start(2, 10)
        gevent.spawn(again)

started = []

@events.init.add_listener
def keep(environment, **_):
    started.append(environment)
"""
    options = ["--think-time", "0.05", "--sidecar", target.url]
    load(tmp_path, target.url, ["Conversation"], *options, users=2, seconds=2, code=code)
    people = {seen.body["user_id"] for seen in target.seen}
    assert len(people) == 4
    assert len({user_id.split("-user-")[0] for user_id in people}) == 2


def test_actors_keep_their_ids_from_run_to_run_where_a_prefix_is_given(target, tmp_path):
    code = "\nregister = users.register\nusers.register = lambda environment: register(environment, 'known')\n"
    options = ["--sidecar", target.url, "--actors", "3"]
    load(tmp_path, target.url, ["ActivationStorm"], *options, seconds=1, code=code)
    assert sorted(target.ids()) == ["known-0", "known-1", "known-2"]


def test_a_prefix_that_makes_no_legal_ids_is_refused():
    code = """
from locust.env import Environment
from actor_load import ids
from actor_load.errors import LoadError
for prefix in ("-a", "a/b", "a b", "x" * 101):
    try:
        ids.register(Environment(), prefix)
    except LoadError as error:
        print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=LOAD_TESTS)
    assert [line.startswith("prefix ") for line in said.stdout.splitlines()] == [True] * 4
