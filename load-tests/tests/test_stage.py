"""How a scenario ends when it can't go on. Whole scenarios, on a cluster, are in tests/e2e/test_load_scenarios.py."""

import gevent
import pytest
from actor_load.errors import LoadError
from actor_load.options import Options
from actor_load.recorder import Recorder
from actor_load.scenarios.stage import Stage
from actor_load.users.visits import Rounds
from locust.env import Environment


class Deployment:
    """Stands for the one on the cluster; ``error`` is what putting it back meets."""

    def __init__(self, error: LoadError | None = None) -> None:
        self.error = error
        self.restored = 0

    def restore(self) -> None:
        self.restored += 1
        if self.error:
            raise self.error


@pytest.fixture
def play():
    """Plays a script to its end, or stops it; the record of the run."""

    def played(script, deployment, *, stop=False):
        environment = Environment()
        environment.create_local_runner()
        recorder = Recorder(environment, dict)
        recorder.begin(Options(), "a scenario")
        stage = Stage(
            script,
            environment=environment,
            recorder=recorder,
            options=Options(),
            users=1,
            deployment=deployment,
            rounds=Rounds(environment),
        )
        assert stage.tick(0) is not None
        gevent.sleep(0)
        if stop:
            stage.stop()
        gevent.sleep(0.01)
        assert stage.tick(1) is None
        return recorder.finish()

    return played


def failed(record):
    return [(check.name, check.detail) for section in record.sections for check in section.checks if not check.passed]


def test_a_scenario_that_comes_to_its_end_has_only_its_own_sections_and_puts_the_cluster_back(play):
    def script(stage):
        with stage.section("found", "") as findings:
            findings.check("all is well", True, "")

    deployment = Deployment()
    record = play(script, deployment)
    assert [section.title for section in record.sections] == ["found"]
    assert record.passed
    assert deployment.restored == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            LoadError("waited 240 s for 9 pods to host A in vain"),
            "waited 240 s for 9 pods to host A in vain",
        ),
        (KeyError("pod"), "KeyError: 'pod'"),
    ],
)
@pytest.mark.parametrize("within", [True, False], ids=["in a section", "between sections"])
def test_a_scenario_that_can_not_go_on_fails_the_run_and_says_why(play, error, said, within):
    def script(stage):
        if within:
            with stage.section("found so far", "") as findings:
                findings.check("all is well", True, "")
                raise error
        raise error

    deployment = Deployment()
    record = play(script, deployment)
    assert [section.title for section in record.sections] == [*["found so far"] * within, "What went wrong"]
    assert failed(record) == [("the scenario came to its end", said)]
    assert [(event.kind, event.text) for event in record.events] == [("problem", said)]
    assert not record.passed
    assert deployment.restored == 1


def test_a_scenario_that_is_interrupted_fails_the_run_and_puts_the_cluster_back(play):
    deployment = Deployment()
    record = play(lambda _: gevent.sleep(60), deployment, stop=True)
    assert failed(record) == [("the scenario came to its end", "it was interrupted")]
    assert deployment.restored == 1


def test_a_cluster_that_can_not_be_put_back_fails_the_run(play):
    record = play(lambda _: None, Deployment(LoadError("not allowed to patch deployments/scale")))
    assert failed(record) == [("the cluster is as it was before", "not allowed to patch deployments/scale")]
