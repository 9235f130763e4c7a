"""`make bench` on the cluster, and the benches that run ours without one. Nothing is timed here."""

import json
import subprocess

import pytest

from cluster.client import CHAT
from cluster.versions import ROOT

pytestmark = pytest.mark.e2e


def run(target, options, folder):
    done = subprocess.run(
        ["make", target, f"BENCH_OPTIONS={options} --to {folder}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_ours_and_the_peers_take_turns_and_every_turn_is_answered(cluster, tmp_path):
    pods = len(cluster.pods(CHAT))
    systems = ("peer", "dapr-session", "tutorial", "cluster")
    run(
        "bench",
        f"--systems {','.join(systems)} --pods 1 --clients 1 --rounds 1 --seconds 3 --users 5 --calls",
        tmp_path,
    )
    steps = json.loads((tmp_path / "bench.json").read_text())["steps"]
    assert [step["system"] for step in steps] == ["peer", "dapr-session", "tutorial", "cluster, 1 pod"]
    assert [set(step["load"]["statuses"]) for step in steps] == [{"200"}] * len(steps)
    assert [step["first_token_ms"] is not None for step in steps] == [True, True, False, True]
    assert (tmp_path / "bench.png").stat().st_size
    cluster.settle()
    assert len(cluster.pods(CHAT)) == pods


def test_actors_are_activated_deactivated_and_found_as_they_were(tmp_path):
    run("bench-activations", "--users 50", tmp_path)
    found = json.loads((tmp_path / "activations.json").read_text())
    assert [(one["calls"], one["failed"]) for one in found["passes"]] == [(50, {})] * 2
    assert found["about"]["active_at_once"] >= 50


def test_a_turn_is_measured_late_in_a_session_and_beside_many_users(tmp_path):
    run("bench-long", "--messages 10,20 --users 1,30 --turns 10", tmp_path)
    points = json.loads((tmp_path / "long.json").read_text())["points"]
    assert [point["at"] for point in points] == [10, 20, 1, 30]
    assert all({"chat-service", "agent-memory-service", "Redis"} <= set(point["cpu_ms"]) for point in points)
    assert (tmp_path / "long.png").stat().st_size
