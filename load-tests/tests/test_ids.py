"""Ids are shared out so that nothing is called twice and nothing is left out."""

import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager

import pytest
from support.serving import free_port

from .locust_runs import LOAD_TESTS, command, distributed, found, load, serving


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


@contextmanager
def running(line, environment):
    """A process that is ended with the block, at the latest."""
    with subprocess.Popen(
        line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def turns_of_workers(target):
    """Number of a worker -> turns of its people."""
    return Counter(seen.body["user_id"].split("-")[-2] for seen in target.seen)


def wait_for(reached, process):
    """Asks until it is true, as long as a process lives."""
    while not reached():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def test_a_worker_that_comes_during_the_run_speaks_for_people_of_its_own(target, tmp_path):
    port = free_port()
    quick = ["--think-time", "0.05", "--double-share", "0"]
    bind = ["--master", "--expect-workers", "1", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
    line, environment = command(tmp_path, target.url, ["Conversation"], *quick, *bind, users=4, seconds=40)
    join = ["-m", "locust", "-f", tmp_path / "locustfile.py", "--worker", "--master-port", port]
    worker = [str(part) for part in (sys.executable, *join)]
    with running(line, environment) as master, running(worker, environment) as first:
        wait_for(lambda: len({seen.body["user_id"] for seen in target.seen}) == 4, master)
        assert set(turns_of_workers(target)) == {"0"}
        with running(worker, environment) as second:
            wait_for(lambda: turns_of_workers(target)["1"] > 5, master)
            master.send_signal(signal.SIGTERM)
            said = [process.communicate(timeout=30)[0] for process in (second, first, master)]
    run = found(tmp_path, master.returncode, "\n".join(said))
    assert run.failures == 0, run.errors  # nobody's turns are in the sequence of another


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
