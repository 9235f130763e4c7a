"""Which pods a fault takes away, and when it is over. On a cluster: tests/e2e/test_load_scenarios.py."""

from importlib import import_module
from types import SimpleNamespace

import pytest
from actor_load.errors import LoadError
from actor_load.faults import FAULTS
from actor_load.options import Options
from actor_load.record import PlacementSample

faults = import_module("actor_load.scenarios.faults")  # its package has a function of that name


class Pods:
    """Three pods of a part; one that is deleted comes back under its name as another, after ``looks`` looks at them."""

    def __init__(self, names=("a", "b", "c"), looks=2):
        self.pods = {f"old-{name}": name for name in names}
        self.deleted = []
        self._looks = looks
        self._coming = []

    def __call__(self, options, namespace, selector):
        self.namespace, self.selector = namespace, selector
        return self

    def ready(self):
        self._coming = [(name, left - 1) for name, left in self._coming]
        self.pods |= {f"new-{name}": name for name, left in self._coming if left == 0}
        return dict(self.pods)

    def delete(self, name, grace_seconds):
        self.deleted.append((name, grace_seconds))
        self.pods = {uid: pod for uid, pod in self.pods.items() if pod != name}
        self._coming.append((name, self._looks))


@pytest.fixture
def happens(monkeypatch):
    """Lets a fault happen to pods, on a stage that waits in no time; what it says of the change.

    ``leaders`` are what the looks at placement find, one after the other.
    """

    def run(name, pods, leaders=("b",)):
        monkeypatch.setattr(faults, "PodGroup", pods)
        options = Options(namespace="mine", dapr_namespace="dapr")
        looks = []

        def wait(reached, *_):
            while not reached():
                looks.append(dict(pods.pods))

        def change(text, action, count, gone):
            action()
            return SimpleNamespace(text=text, count=count, gone=gone, looks=looks)

        samples = (PlacementSample(at=1, leader=leader) for leader in leaders)
        stage = SimpleNamespace(options=options, wait=wait, change=change, sample=lambda: next(samples))
        return faults._happens(stage, FAULTS[name], 2)

    return run


@pytest.mark.parametrize(
    ("name", "deleted", "namespace"),
    [
        ("chat-deleted", [("a", None)], "mine"),
        ("chat-killed", [("a", 0)], "mine"),
        ("chats-killed", [("a", 0), ("b", 0), ("c", 0)], "mine"),
        ("redis-killed", [("a", 0)], "mine"),
        ("placement-deleted", [("b", None)], "dapr"),
        ("placement-killed", [("b", 0)], "dapr"),
        ("placement-follower-deleted", [("a", None)], "dapr"),
        ("placement-follower-killed", [("a", 0)], "dapr"),
        ("sentry-killed", [("a", 0)], "dapr"),
    ],
)
def test_it_takes_away_the_pods_it_names_and_waits_for_new_ones(happens, name, deleted, namespace):
    pods = Pods()
    change = happens(name, pods)
    assert pods.deleted == deleted
    assert pods.namespace == namespace
    assert change.gone == {pod for pod, _ in deleted}
    assert len(change.looks) == 1, "it looks until they are there"
    assert len(pods.pods) == 3
    assert not {f"old-{pod}" for pod, _ in deleted} & pods.pods.keys()


def test_a_part_that_is_not_there_ends_the_run_by_its_name(happens):
    with pytest.raises(
        LoadError, match="a sentry pod is killed: no pod with app=dapr-sentry is ready in namespace dapr"
    ):
        happens("sentry-killed", Pods(names=()))


def test_what_is_under_load_is_known_by_the_name_of_its_deployment(happens):
    pods = Pods()
    happens("chat-killed", pods)
    assert (pods.namespace, pods.selector) == ("mine", "app.kubernetes.io/name=chat-service")


def test_the_leader_of_placement_is_waited_for(happens):
    pods = Pods()
    happens("placement-killed", pods, leaders=("", "", "c"))
    assert pods.deleted == [("c", 0)]


def test_a_follower_is_taken_only_where_there_is_one(happens, monkeypatch):
    followers = {"placement-follower-deleted", "placement-follower-killed"}
    monkeypatch.setattr(faults, "PodGroup", Pods(names=("a", "b", "c")))
    assert faults._possible(Options()) == list(FAULTS)
    monkeypatch.setattr(faults, "PodGroup", Pods(names=("a",)))
    assert set(FAULTS) - set(faults._possible(Options())) == followers
    with pytest.raises(LoadError, match=r"a placement pod that follows is killed: there is none among a; .*values-ha"):
        happens("placement-follower-killed", Pods(names=("a",)), leaders=("a",))
