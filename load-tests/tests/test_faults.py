"""Which pods a fault takes away, and when it is over. On a cluster: tests/e2e/test_load_scenarios.py."""

from importlib import import_module
from types import SimpleNamespace

import pytest
from actor_load import node_faults
from actor_load.cluster import Container
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
        self.disturbed = []
        self._looks = looks
        self._coming = []
        self._container_ids = iter(["c1", *["c1"] * looks, "c2", "c3"])

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

    def addresses(self):
        return [f"ip-{name}" for name in self.pods.values()]

    def container(self, pod, container):
        """After ``looks`` looks it is another."""
        return Container(f"node-of-{pod}", next(self._container_ids))

    def disturb(self, address, kind, seconds):
        self.disturbed.append((address, kind, seconds))


class Jobs:
    """Made like a NodeJob; each is done at the third look."""

    def __init__(self):
        self.made = []
        self._looks = 0

    def __call__(self, options, node, arguments):
        self.made.append((node, *arguments))
        return self

    def is_done(self):
        self._looks += 1
        return self._looks > 2


@pytest.fixture
def jobs(monkeypatch):
    """Stand for those that are made on nodes."""
    made = Jobs()
    monkeypatch.setattr(faults, "NodeJob", made)
    return made


@pytest.fixture
def happens(monkeypatch):
    """Lets a fault happen to pods, on a stage that waits in no time; what it says of the change.

    ``leaders`` are what the looks at placement find, one after the other.
    """

    def run(name, pods, leaders=("b",), node_faults="node-faults"):
        monkeypatch.setattr(faults, "PodGroup", pods)
        monkeypatch.setattr(faults, "disturb", pods.disturb)
        options = Options(namespace="mine", dapr_namespace="dapr", node_faults=node_faults)
        looks = []

        def wait(reached, *_):
            while not reached():
                looks.append(dict(pods.pods))

        def change(text, action, count, gone=frozenset()):
            action()
            return SimpleNamespace(text=text, count=count, gone=gone, looks=looks)

        samples = (PlacementSample(at=1, leader=leader) for leader in leaders)
        stage = SimpleNamespace(
            options=options, wait=wait, change=change, sample=lambda: next(samples), sleep=lambda _: None
        )
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


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("chat-app-killed", ("node-of-a", "kill", "c1")),
        ("chat-sidecar-killed", ("node-of-a", "kill", "c1")),
        ("chat-without-placement", ("node-of-a", "cut-off", "c1", "--port=50005", "--seconds=10")),
        ("chat-without-redis", ("node-of-a", "cut-off", "c1", "--port=6379", "--seconds=10")),
        ("redis-hangs", ("node-of-a", "freeze", "c1", "--seconds=10")),
    ],
)
def test_what_happens_on_a_node_is_a_job_there_and_takes_no_pod_away(happens, jobs, name, job):
    pods = Pods()
    change = happens(name, pods)
    assert jobs.made == [job]
    assert pods.deleted == []
    assert change.gone == frozenset()


def test_a_killed_container_is_waited_for_until_it_is_another(happens, jobs):
    change = happens("chat-app-killed", Pods(looks=5))
    assert len(change.looks) == 2 + 5, "of the job, and of the container"


def test_what_happens_on_a_node_takes_the_right_to_it(happens, jobs):
    with pytest.raises(LoadError, match=r"nodeFaults\.enabled=true"):
        happens("redis-hangs", Pods(), node_faults="")
    assert jobs.made == []


def test_every_pod_of_the_model_fails_at_once(happens):
    pods = Pods()
    happens("model-refuses", pods)
    assert pods.disturbed == [(f"ip-{name}", "refuse", 10) for name in "abc"]


@pytest.mark.parametrize("how", [fault.how for fault in FAULTS.values() if isinstance(fault.how, faults.OnNode)])
def test_what_a_job_is_told_is_a_command_line_that_it_takes(monkeypatch, how):
    done = []
    monkeypatch.setattr(node_faults, "processes", lambda container_id: [7, 8])
    for name in ("kill", "freeze", "cut_off"):
        monkeypatch.setattr(node_faults, name, lambda *given: done.append(given))
    monkeypatch.setattr(node_faults.signal, "signal", lambda *_: None)
    node_faults.main(faults._arguments(how, "c1"))
    expected = {"Kill": ([7, 8],), "Freeze": ([7, 8], 10), "CutOff": (7, getattr(how, "port", 0), 10)}
    assert done == [expected[type(how).__name__]]


class TestWhatIsPossible:
    def possible(self, **options):
        return set(faults._possible(Options(**options)))

    def test_what_happens_on_nodes_takes_a_cron_job_that_is_named(self, monkeypatch):
        monkeypatch.setattr(faults, "PodGroup", Pods())
        on_nodes = {name for name, fault in FAULTS.items() if isinstance(fault.how, faults.OnNode)}
        assert on_nodes >= {"chat-app-killed", "chat-without-redis", "redis-hangs"}
        assert self.possible(node_faults="there") == set(FAULTS)
        assert self.possible() == set(FAULTS) - on_nodes

    def test_the_offline_model_fails_only_where_it_is(self, monkeypatch):
        monkeypatch.setattr(faults, "PodGroup", Pods(names=()))
        assert not any(name.startswith("model-") for name in self.possible())


def test_a_follower_is_taken_only_where_there_is_one(happens, monkeypatch):
    followers = {"placement-follower-deleted", "placement-follower-killed"}
    monkeypatch.setattr(faults, "PodGroup", Pods(names=("a", "b", "c")))
    assert faults._possible(Options(node_faults="there")) == list(FAULTS)
    monkeypatch.setattr(faults, "PodGroup", Pods(names=("a",)))
    assert set(FAULTS) - set(faults._possible(Options(node_faults="there"))) == followers
    with pytest.raises(LoadError, match=r"a placement pod that follows is killed: there is none among a; .*values-ha"):
        happens("placement-follower-killed", Pods(names=("a",)), leaders=("a",))
