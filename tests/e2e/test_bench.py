"""`make bench` on the cluster."""

import json
import subprocess

import pytest

from cluster.client import CHAT
from cluster.versions import ROOT

pytestmark = pytest.mark.e2e


def test_ours_and_the_peer_take_turns_and_every_turn_is_answered(cluster, tmp_path):
    pods = len(cluster.pods(CHAT))
    options = f"--pods 1 --clients 2 --rounds 1 --seconds 3 --users 5 --calls --to {tmp_path}"
    done = subprocess.run(
        ["make", "bench", f"BENCH_OPTIONS={options}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    steps = json.loads((tmp_path / "bench.json").read_text())["steps"]
    assert [step["system"] for step in steps] == ["peer", "cluster, 1 pod"]
    assert [set(step["load"]["statuses"]) for step in steps] == [{"200"}] * 2
    cluster.settle()
    assert len(cluster.pods(CHAT)) == pods
