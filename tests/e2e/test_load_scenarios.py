"""The scenarios of the load tests, small, each as the one command that it is: on the real cluster, from this machine.

The tour, in the cluster and whole, is the last: it is what `make load` does.
"""

import os
import subprocess
from itertools import pairwise

import pytest
from actor_load.faults import FAULTS
from actor_load.record import Record

from cluster.client import CHAT, MEMORY
from cluster.forward import Forward
from cluster.versions import ROOT

pytestmark = pytest.mark.e2e

PYTHON = ROOT / ".venv" / "bin" / "python"
LOCUSTFILE = ROOT / "load-tests" / "locustfile.py"
SCENARIO_SECONDS = 280


@pytest.fixture
def play(cluster, tmp_path):
    """Plays a scenario to its end; its record. The sidecar that calls the actors is one that stays."""

    def run(scenario, *options):
        (memory, *_) = cluster.pods(MEMORY)
        with Forward(cluster.kube, cluster.namespace, f"pod/{memory.metadata.name}", 3500) as sidecar:
            line = [PYTHON, "-m", "locust", "-f", LOCUSTFILE, "--headless", "--only-summary", "--scenario", scenario]
            line += ["--host", cluster.reach.url(CHAT), "--sidecar", sidecar.url, "--namespace", cluster.namespace]
            line += ["--memory-host", cluster.reach.url(MEMORY), "-u", "5", "--report", tmp_path, *options]
            done = subprocess.run(
                [str(part) for part in line],
                env={**os.environ, "KUBECONFIG": str(cluster.kube.target.kubeconfig)},
                capture_output=True,
                text=True,
                timeout=SCENARIO_SECONDS,
                check=False,
            )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert "Traceback" not in said, said
        return Record.model_validate_json((tmp_path / "report.json").read_bytes())

    before = names(cluster)
    yield run
    cluster.settle()
    assert len(names(cluster)) == len(before), "as many chat pods as before"


def names(cluster):
    return {pod.metadata.name for pod in cluster.pods(CHAT)}


def table(section, title):
    """A table's rows, as {column: text}."""
    (found,) = [table for table in section.tables if table.title == title]
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def figure(section, name):
    (found,) = [figure for figure in section.figures if figure.name == name]
    return found.value


def test_scale_names_what_it_costs_those_who_chat_and_what_moves(play):
    left = play("scale", "--pods", "1,2,1")

    (section,) = left.sections
    costs = table(section, "What each change cost")
    assert [row["change"] for row in costs] == ["scale 1 -> 2", "scale 2 -> 1"]
    assert all(int(row["turns"]) > 0 == int(row["failed"]) for row in costs)
    moves = table(section, "Where actors are, and what moved")
    assert [row["pods"] for row in moves] == ["1", "2", "1"]
    assert all(row["where the ring says"] == "100.0 %" for row in moves)
    assert all(row["moved"] == row["moved by the ring"] for row in moves)
    assert {check.name for check in section.checks if check.passed} == {
        "no turn failed while pods came and went",
        "every actor is where the ring says",
        "as many actors moved as the ring says",
    }
    versions = [sample.version for sample in left.placement if sample.version is not None]
    assert all(before <= after for before, after in pairwise(versions))
    assert versions[-1] > versions[0]


def test_a_rolling_update_replaces_every_pod_and_fails_no_turn(cluster, play):
    before = names(cluster)

    (section,) = play("rolling").sections

    assert not names(cluster) & before
    (cost,) = table(section, "What each change cost")
    assert int(cost["turns"]) > 0 == int(cost["failed"])
    assert figure(section, "slowest turn during a change") == cost["slowest"]


def test_faults_cost_those_who_chat_some_seconds_and_no_turn(play):
    names = ["chat-killed", "placement-killed", "redis-killed"]
    section, told = play("faults", "--faults", ",".join(names), "--retries", "10").sections

    costs = table(section, "What each change cost")
    assert [row["change"] for row in costs] == [FAULTS[name].text for name in names]
    assert all(int(row["turns"]) > 0 == int(row["failed"]) for row in costs)
    assert [row["change"] for row in table(told, "What clients were told of each change")] == [
        row["change"] for row in costs
    ]
    assert int(figure(told, "turns checked").replace(",", "")) > sum(int(row["turns"]) for row in costs)
    assert figure(told, "violations") == "0"


def test_a_storm_activates_every_actor_where_the_ring_says(cluster, play):
    left = play("storm", "--storm-actors", "1000")

    (section,) = left.sections
    where = table(section, "Where they live")
    assert {row["pod"] for row in where} == names(cluster)
    assert sum(int(row["actors"].replace(",", "")) for row in where) == 1000
    assert left.summary(prefix="BeginTurn").answered == 1000
    assert float(figure(section, "activations a second").replace(",", "")) > 0


def test_idle_actors_are_deactivated_and_every_one_comes_back_anew(cluster, play):
    def idle_timeouts():
        return {
            variable.value
            for pod in cluster.pods(CHAT)
            for variable in pod.spec.containers[0].env
            if variable.name == "ACTOR_IDLE_TIMEOUT_SECONDS"
        }

    before = idle_timeouts()

    (section,) = play("idle", "--storm-actors", "500", "--idle-seconds", "5").sections

    (anew,) = [check for check in section.checks if check.name == "every actor was activated anew"]
    assert anew.detail == "500 of 500"
    assert int(figure(section, "active at once")) > 0
    cluster.settle()
    assert idle_timeouts() == before, "the time-out is what it was"


def test_the_ring_names_the_host_of_every_actor_on_any_number_of_pods(play):
    (section,) = play("ring", "--actors", "1500", "--pods", "1,3,2,4").sections

    rows = table(section, "Where actors are, and what moved")
    assert [row["pods"] for row in rows] == ["1", "3", "2", "4"]
    assert all(row["where the ring says"] == "100.0 %" for row in rows)
    assert figure(section, "actors where the ring says") == "100.0 %"


@pytest.mark.timeout(600)
def test_make_load_is_the_tour_ramp_scale_and_report(cluster):
    done = subprocess.run(["make", "load"], cwd=ROOT, capture_output=True, text=True, check=False)

    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    (line,) = [line for line in done.stdout.splitlines() if "] report: " in line]
    report = ROOT / line.partition("] report: ")[2]
    left = Record.model_validate_json(report.with_name("report.json").read_bytes())
    held, activated, scaled = left.sections
    assert float(figure(held, "highest rate within bounds").partition("/")[0]) > 0
    assert int(figure(activated, "activations a second")) > 0
    assert [row["change"] for row in table(scaled, "What each change cost")] == ["scale 1 -> 3", "scale 3 -> 2"]
    assert left.passed
    assert len({sample.process for sample in left.generator}) == 3
    assert report.with_name("report.png").stat().st_size > 100_000
    cluster.settle()
