"""``python -m actor_load.placement``, and the stream of samples in another process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from actor_load.placement import stream
from actor_load.placement.__main__ import main
from actor_load.placement.observer import Watched
from actor_load.placement.rendezvous import Rendezvous
from actor_load.placement.ring import Ring
from actor_load.placement.stream import PlacementStream
from actor_load.record import PlacementSample

from . import kubernetes_api as api

LOAD_TESTS = Path(__file__).parents[1]
FAST = Watched(placement_seconds=0.5)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    with api.serving(tmp_path) as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig))
        yield running


@pytest.fixture
def streams():
    """Starts streams: (stream, samples, events), closed after the test."""
    opened = []

    def start(watched=FAST):
        samples, events = [], []
        opened.append(PlacementStream(watched, samples.append, lambda kind, text: events.append((kind, text))))
        return opened[-1], samples, events

    yield start
    for item in opened:
        item.close()


def until(reached, seconds=20.0):
    """What ``reached`` gives, as soon as it is something."""
    end = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < end, f"not reached after {seconds} s"
        time.sleep(0.02)
    return found


# ---- commands


def test_once_prints_one_table(cluster, capsys):
    assert main(["--once"]) == 0
    said = capsys.readouterr().out
    assert "2 hosts, 40 active actors, placement table version 7; node node-1; actor type UserSessionActor" in said
    row = next(line for line in said.splitlines() if "chat-a" in line)
    assert row.split()[:5] == ["chat-a", "ready", "30", "75.0", "%"]


def test_problems_stand_below_the_table(cluster, capsys):
    cluster.answers[api.metrics("chat-b")] = api.unreachable("connection refused")
    assert main(["--once"]) == 0
    assert "the sidecar of chat-b (/metrics) does not answer: connection refused" in capsys.readouterr().out


def test_options_come_from_the_environment_of_locust_too(cluster, capsys, monkeypatch):
    monkeypatch.setenv("LOCUST_NAMESPACE", "elsewhere")
    assert main(["--once"]) == 2
    assert capsys.readouterr().err == "placement: there is no namespace elsewhere: --namespace names another\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--placement-seconds", "0", "--once"], "--placement-seconds 0: Input should be greater than or equal to 0.5"),
        (["--kube-context", "nope", "--once"], "--kube-context nope: "),
        (["--actor-type", "Nobody", "host", "a"], "no host offers Nobody: --actor-type names another"),
    ],
)
def test_a_wrong_option_is_one_line(cluster, capsys, arguments, said):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


def test_host_names_the_pods_of_ids_by_the_ring(cluster, capsys):
    assert main(["host", "alice", "bob"]) == 0
    said = capsys.readouterr().out
    ring = Ring(["10.0.0.1:50002", "10.0.0.2:50002"])
    pods = {"10.0.0.1:50002": "chat-a", "10.0.0.2:50002": "chat-b"}
    for actor_id in ("alice", "bob"):
        row = next(line for line in said.splitlines() if actor_id in line)
        address = ring.host_of(actor_id)
        assert [cell.strip() for cell in row.split("│")[1:4]] == [actor_id, pods[address], address]


def test_host_names_the_pods_of_ids_by_rendezvous_where_the_scheduler_places(cluster, capsys):
    cluster.answers[api.PLACEMENT] = api.items()
    cluster.answers[api.SCHEDULERS] = api.items(api.scheduler("--placement-enabled=true"))
    ids = [f"user-{number}" for number in range(20)]
    assert main(["host", *ids]) == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    found = Rendezvous(["10.0.0.1:50002", "10.0.0.2:50002"])
    assert {row[0]: row[2] for row in rows if row and row[0] in ids} == {each: found.host_of(each) for each in ids}


def test_ring_predicts_skew_and_moves_without_a_cluster(capsys, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert main(["ring", "--hosts", "1,3,6,2", "--rings", "20"]) == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert ["1", "100.0%", "1.00 x", "1.00 x", "1.00 x", "1.00 x"] in rows
    moves = {row[0]: float(row[1].rstrip("%")) for row in rows if row and "->" in row[0]}
    assert moves == {
        "1 -> 3": pytest.approx(67, abs=4),
        "3 -> 6": pytest.approx(50, abs=4),
        "6 -> 2": pytest.approx(67, abs=4),
    }


@pytest.mark.parametrize("hosts", ["0", "1,,2", "x", "-1"])
def test_ring_wants_counts(hosts, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["ring", f"--hosts={hosts}"])
    assert caught.value.code == 2
    assert "is no number from 1" in capsys.readouterr().err


def test_json_prints_a_sample_a_line_and_ends_with_its_reader(cluster):
    command = [sys.executable, "-m", "actor_load.placement", "--json", "--placement-seconds", "0.5"]
    with subprocess.Popen(command, cwd=LOAD_TESTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        first, second = (PlacementSample.model_validate(json.loads(child.stdout.readline())) for _ in range(2))
        child.stdout.close()
        assert child.wait(10) == 0
        assert child.stderr.read() == ""
    assert first.version == 7
    assert 0.4 < second.at - first.at < 3


# ---- the stream


def test_a_stream_gives_samples_and_leaves_no_process(cluster, streams):
    streaming, samples, events = streams()
    until(lambda: len(samples) >= 2)
    assert [pod.name for pod in samples[0].pods] == ["chat-a", "chat-b"]
    child = psutil.Process(streaming.pid)
    streaming.close()
    assert not child.is_running()
    assert streaming.pid is None
    count = len(samples)
    streaming.close()
    assert (len(samples), events) == (count, [])


def test_a_child_that_ends_is_said_once_and_started_again(cluster, streams, monkeypatch):
    monkeypatch.setattr(stream, "FIRST_PAUSE_SECONDS", 0.05)
    streaming, samples, events = streams()
    until(lambda: samples)
    os.kill(streaming.pid, signal.SIGKILL)
    until(lambda: events)
    count = len(samples)
    until(lambda: len(samples) > count)
    assert events == [("problem", "the placement view ended (exit code -9); it is started again")]


def test_a_child_that_cannot_start_is_said_once_with_its_own_words(streams, monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(stream, "FIRST_PAUSE_SECONDS", 0.01)
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *given, **more: started.append(1) or popen(*given, **more))
    _, samples, events = streams()
    until(lambda: len(started) >= 3)
    assert samples == []
    assert len(events) == 1
    assert "there is no kubeconfig" in events[0][1]


PARENT = """
import sys, time
if sys.argv[1] == "gevent":
    from gevent import monkey
    monkey.patch_all()
from actor_load.placement.observer import Watched
from actor_load.placement.stream import PlacementStream

samples = []
stream = PlacementStream(Watched(placement_seconds=0.5), samples.append, print)
ticks = 0
while len(samples) < 3:
    time.sleep(0.01)
    ticks += 1
print(stream.pid, ticks, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("process", ["gevent", "plain"])
def test_the_child_of_a_parent_that_is_killed_ends_too(cluster, process):
    command = [sys.executable, "-c", PARENT, process]
    with subprocess.Popen(command, cwd=LOAD_TESTS, stdout=subprocess.PIPE, text=True) as parent:
        pid, ticks = map(int, parent.stdout.readline().split())
        child = psutil.Process(pid)
        assert child.is_running()
        assert ticks > 30, "waiting for a sample held the rest of the process up"
        parent.kill()
    psutil.wait_procs([child], 10)
    assert not child.is_running()
