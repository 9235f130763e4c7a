"""The user classes of the load tests, on the running system."""

import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from cluster.client import CHAT
from cluster.dapr import SIDECAR_PORT
from cluster.versions import ROOT

pytestmark = pytest.mark.e2e

LOCUSTFILE = ROOT / "load-tests/locustfile.py"


def locust(folder, *arguments):
    """Runs Locust for some seconds; name of a request -> its row."""
    stats = Path(folder) / "stats"
    command = [sys.executable, "-m", "locust", "-f", LOCUSTFILE, "--headless", "--only-summary", "-r", 20]
    command += ["--placement", "off", "--json-file", stats, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LOCUST_", "DAPR_"))}
    said = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    output = said.stdout + said.stderr
    assert said.returncode == 0, output
    rows = {row["name"]: row for row in json.loads(stats.with_suffix(".json").read_text())}
    assert {name: row["num_failures"] for name, row in rows.items() if row["num_failures"]} == {}, output
    return rows


def requests(rows, start):
    """Requests under names that start so."""
    return sum(row["num_requests"] for name, row in rows.items() if name.startswith(start))


def turns_of_runs(cluster, seconds):
    """Prefix of a run -> pod -> turns that it has answered in the last seconds, by its log."""
    found = defaultdict(Counter)
    for pod in cluster.pods(CHAT):
        name = pod.metadata.name
        log = cluster.kube.core.read_namespaced_pod_log(
            name, cluster.namespace, container=CHAT, since_seconds=round(seconds), _preload_content=False
        )
        for line in map(json.loads, log.data.splitlines()):
            if line.get("route") == "/chat/" and line["status"] == 200 and "-user-" in line.get("session", ""):
                found[line["session"].partition("-user-")[0]][name] += 1
    return found


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (
            ["Conversation", "-u", 6, "--think-time", "0.2-0.5", "--double-share", "0.3", "--long-share", "0.2"],
            {"turn", "turn (second text)"},
        ),
        (["Arrivals", "-u", 4, "--arrival-rate", "3"], {"turn (due)"}),
    ],
    ids=["Conversation", "Arrivals"],
)
def test_people_chat_and_reach_every_replica(cluster, tmp_path, load, expected):
    started = time.monotonic()
    rows = locust(tmp_path, *load, "-t", "8s", "--host", cluster.reach.url(CHAT))
    assert expected <= set(rows)
    turns = requests(rows, "turn")
    assert turns > 40

    # The logs of the pods have as many turns as Locust has counted, each once: this run's, on all of them.
    pods = {pod.metadata.name for pod in cluster.pods(CHAT)}
    runs = turns_of_runs(cluster, time.monotonic() - started + 2).values()
    mine = [found for found in runs if found.total() == turns]
    assert [set(found) for found in mine] == [pods]


def test_actors_are_called_straight_through_a_sidecar(cluster, tmp_path):
    classes = ["ActivationStorm", "HotActors", "ColdActors", "ReadsAndWrites"]
    with cluster.pod_url(cluster.pods(CHAT)[0], SIDECAR_PORT) as sidecar:
        rows = locust(tmp_path, *classes, "-u", 8, "-t", "8s", "--sidecar", sidecar, "--actors", 50)
    assert rows["BeginTurn"]["num_requests"] == 50
    names = {"BeginTurn (hot)", "BeginTurn (cold)", "GetConversationHistory", "AddMessage"}
    assert {name: rows[name]["num_requests"] > 20 for name in names} == dict.fromkeys(names, True)
