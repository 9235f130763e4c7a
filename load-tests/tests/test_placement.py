"""The placement view: what is asked of Kubernetes, what becomes of the answers, and what is said without any."""

import time

import pytest
from actor_load.errors import LoadError
from actor_load.options import Options
from actor_load.placement import kube, observer, view
from actor_load.placement.observer import Observer, Watched
from actor_load.record import Container, Host, PlacementSample, PodSample

from . import kubernetes_api as api
from .kubernetes_api import counters, items, pod, runtime, table, unreachable, usage


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    with api.serving(tmp_path) as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig))
        yield running


@pytest.fixture
def watch(cluster):
    """Observers, closed after the test."""
    opened = []

    def start(**watched):
        opened.append(Observer(Watched(**watched)))
        return opened[-1]

    yield start
    for item in opened:
        item.close()


@pytest.fixture
def refusal(watch):
    """What ``check()`` says."""

    def said(**watched):
        with pytest.raises(LoadError) as caught:
            watch(**watched).check()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return said


# ---- samples


def test_a_sample_joins_table_sidecars_metrics_and_pods(cluster, watch):
    cluster.answers[api.metrics("chat-a")] = counters(rebalanced_total=(3, 4), pending_actor_calls=(2, 0))
    cluster.answers[api.metrics("chat-b")] = counters(deactivated_total=(5, 1))
    before = time.time()
    sample = watch().observe()
    assert before <= sample.at <= time.time()
    assert (sample.version, sample.problems) == (7, [])
    assert [(host.address, host.app_id, host.actor_types) for host in sample.hosts] == [
        ("10.0.0.1:50002", "chat-service", ["UserSessionActor"]),
        ("10.0.0.2:50002", "chat-service", ["UserSessionActor"]),
    ]
    first, second = sample.pods
    assert (first.name, first.node, first.ip, first.ready, first.restarts) == ("chat-a", "node-1", "10.0.0.1", True, 1)
    assert (first.active_actors, first.placed) == ({"UserSessionActor": 30}, True)
    assert (first.pending_calls, first.rebalanced, first.deactivated) == (2, 7, 0)
    assert (second.pending_calls, second.rebalanced, second.deactivated) == (0, 0, 6)


def test_connections_are_kept_between_samples(cluster, watch):
    watching = watch()
    watching.observe()
    at_once = len(cluster.asked)  # at most: how many are under way at a time is chance
    for _ in range(20):
        assert not watching.observe().problems
    assert len(cluster.connections) <= at_once, "a sample opens connections of its own"


def test_a_sidecar_without_active_actors_or_a_table_says_so(cluster, watch):
    cluster.answers[api.metadata("chat-b")] = runtime(0, placed=False)
    second = watch().observe().pods[1]
    assert (second.active_actors, second.placed) == ({"UserSessionActor": 0}, False)


def test_cpu_is_what_was_used_between_the_kubelets_measurements(cluster, watch):
    watching = watch()
    looks = [
        usage(1000, daprd=(10.0, 2**20), **{"chat-service": (50, 2**21)}),
        usage(1000, daprd=(10.0, 2**20), **{"chat-service": (50, 2**21)}),
        usage(1010, daprd=(12.5, 2**20), **{"chat-service": (50, 2**22)}),
        usage(1010, daprd=(12.5, 2**20), **{"chat-service": (50, 2**22)}),
        usage(1020, daprd=(0.5, 2**20), **{"chat-service": (55, 2**22)}),
    ]
    cores = []
    for look in looks:
        cluster.answers[api.NODE] = look
        used = watching.observe().pods[0].containers
        cores.append((used["daprd"].cpu_cores, used["chat-service"].cpu_cores))
    # Nothing at first, the last rate until the next measurement, nothing after a container has started again.
    assert cores == [(None, None), (None, None), (0.25, 0.0), (0.25, 0.0), (None, 0.5)]
    assert used["chat-service"].memory_bytes == 2**22


def test_throttling_is_the_share_of_the_periods_since_the_look_before_of_containers_that_have_a_limit(cluster, watch):
    limited = api.pod("chat-a", "10.0.0.1", limits={"daprd": "250m"})
    cluster.answers[api.PODS] = api.items(limited, api.pod("chat-b", "10.0.0.2"))
    cluster.answers[api.NODE] = usage(1000, daprd=(10.0, 2**20), **{"chat-service": (50, 2**21)})
    watching = watch()
    found = []
    for periods, stopped in ((100, 50), (200, 60), (200, 60), (300, 60), (10, 10), (20, 15)):
        cluster.answers[api.CADVISOR] = api.throttling(daprd=(periods, stopped))
        used = watching.observe().pods[0].containers
        found.append(used["daprd"].throttled)
        assert (used["daprd"].cpu_limit, used["chat-service"].cpu_limit) == (0.25, None)
        assert used["chat-service"].throttled is None
    # Nothing at first, the last share until the next measurement, nothing after a container has started again.
    assert found == [None, 0.1, 0.1, 0.0, None, 0.5]


def test_a_kubelet_that_does_not_tell_of_throttling_leaves_it_unknown_and_is_no_problem(cluster, watch):
    cluster.answers[api.PODS] = api.items(api.pod("chat-a", "10.0.0.1", limits={"daprd": "1"}))
    cluster.answers[api.NODE] = usage(1000, daprd=(10.0, 2**20))
    cluster.answers[api.CADVISOR] = api.forbidden()
    sample = watch().observe()
    assert sample.problems == []
    assert (sample.pods[0].containers["daprd"].cpu_limit, sample.pods[0].containers["daprd"].throttled) == (1.0, None)


def test_without_a_limit_nobody_is_asked_about_throttling(cluster, watch):
    watch().observe()
    assert api.CADVISOR not in cluster.asked


def test_kubelets_that_may_not_be_asked_are_named_once(cluster, watch):
    cluster.answers[api.NODE] = api.forbidden()
    watching = watch()
    first, second = watching.observe(), watching.observe()
    (problem,) = first.problems
    assert problem == (
        f"node node-1 does not tell CPU and memory: {api.USER} may not get nodes/proxy of the cluster: bind it a "
        'ClusterRole with {apiGroups: [""], resources: [nodes/proxy], verbs: [get]}, as charts/load-tests does'
    )
    assert second.problems == []
    assert second.pods[0].containers == {}


def test_the_replica_of_placement_that_leads_is_found(cluster, watch):
    cluster.answers[api.PLACEMENT] = items(*(pod(f"dapr-placement-server-{number}", "10.0.9.1") for number in range(3)))
    cluster.answers[api.state("dapr-placement-server-0")] = (200, None)
    cluster.answers[api.state("dapr-placement-server-1")] = unreachable()
    cluster.answers[api.state("dapr-placement-server-2")] = table("10.0.0.1:50002", version=9)
    sample = watch().observe()
    assert (sample.leader, sample.version, len(sample.hosts)) == ("dapr-placement-server-2", 9, 1)
    assert sample.problems == []


def test_placement_without_a_leader_is_a_problem_of_the_sample(cluster, watch):
    cluster.answers[api.state()] = (200, None)
    sample = watch().observe()
    assert (sample.leader, sample.version, sample.hosts) == ("", None, [])
    assert sample.problems == ["placement has no leader: none of its pods says that it is one"]


@pytest.fixture
def scheduled(cluster):
    """The cluster, where Dapr's scheduler places: there is no placement pod, and nobody tells a table."""
    cluster.answers[api.PLACEMENT] = items()
    cluster.answers[api.SCHEDULERS] = items(api.scheduler("--placement-enabled=true"))
    return cluster


def test_where_the_scheduler_places_the_table_is_what_the_sidecars_say(scheduled, watch):
    given = ("--app-id", "chat-service", "--dapr-internal-grpc-port", "50007")
    scheduled.answers[api.PODS] = items(
        pod("chat-a", "10.0.0.1", arguments=given), pod("chat-b", "10.0.0.2"), pod("chat-c", "10.0.0.3", ready=False)
    )
    scheduled.answers[api.metadata("chat-c")] = runtime(0, placed=False)
    scheduled.answers[api.metrics("chat-c")] = counters()
    sample = watch().observe()
    assert (sample.placer, sample.version, sample.problems) == ("scheduler", None, [])
    assert sample.hosts == [
        Host(address="10.0.0.1:50007", app_id="chat-service", actor_types=["UserSessionActor"]),
        Host(address="10.0.0.2:50002", app_id="", actor_types=["UserSessionActor"]),
    ]
    watch().check()
    assert watch().versions()["Dapr control plane"] == "1.19.0"


def test_a_pod_whose_app_offers_no_actors_any_more_is_no_host(scheduled, watch):
    gone = runtime(0)[1]
    gone["actorRuntime"]["activeActors"] = []
    scheduled.answers[api.metadata("chat-b")] = (200, gone)
    assert [host.address for host in watch().observe().hosts] == ["10.0.0.1:50002"]


@pytest.mark.parametrize(("version", "known"), [("1.19.7", True), ("1.190.0", False), ("1.21.0", False)])
def test_a_scheduler_of_another_release_places_by_a_rule_that_is_not_known(scheduled, watch, refusal, version, known):
    scheduled.answers[api.SCHEDULERS] = items(api.scheduler("--placement-enabled=true", version=version))
    if known:
        watch().check()
        return
    said = (
        f"Dapr {version} places actors by its scheduler, in a way that is known of 1.19 only: "
        "install Dapr with global.scheduler.placement.enabled=false"
    )
    assert refusal() == said
    sample = watch().observe()
    assert (sample.hosts, sample.problems) == ([], [said])


def test_a_pod_that_is_silent_delays_and_hides_no_other(cluster, watch, monkeypatch):
    monkeypatch.setattr(kube, "READ_SECONDS", 0.3)
    names = [f"chat-{number:02}" for number in range(40)]
    cluster.answers[api.PODS] = items(*(pod(name, f"10.0.1.{number}") for number, name in enumerate(names)))
    for name in names:
        cluster.answers[api.metadata(name)] = runtime(5)
        cluster.answers[api.metrics(name)] = counters()
    cluster.answers[api.metadata("chat-07")] = lambda: time.sleep(1) or runtime(5)
    started = time.monotonic()
    sample = watch().observe()
    assert time.monotonic() - started < 1
    assert [found.name for found in sample.pods if found.active_actors is None] == ["chat-07"]
    assert all(found.pending_calls == 0 for found in sample.pods)
    silence = f"no answer within 0.3 s of the cluster's API at {cluster.url}"
    assert sample.problems == [f"the sidecar of chat-07 (/v1.0/metadata) does not answer: {silence}"]


def test_a_ready_pod_whose_sidecar_refuses_is_a_problem_and_a_starting_or_leaving_one_is_none(cluster, watch):
    cluster.answers[api.PODS] = items(
        pod("chat-a", "10.0.0.1"),
        pod("chat-b", "10.0.0.2", ready=False),
        pod("chat-c", "10.0.0.3", leaving=True),
        pod("chat-d"),
        pod("chat-e", "10.0.0.5", phase="Failed"),
    )
    for name in ("chat-a", "chat-b", "chat-c", "chat-d"):
        cluster.answers[api.metadata(name)] = cluster.answers[api.metrics(name)] = unreachable("connection refused")
    sample = watch().observe()
    assert [(found.name, found.ready, found.leaving) for found in sample.pods] == [
        ("chat-a", True, False),
        ("chat-b", False, False),
        ("chat-c", False, True),
        ("chat-d", True, False),
    ]
    assert [problem for problem in sample.problems if "chat-d" not in problem] == [
        "the sidecar of chat-a (/v1.0/metadata) does not answer: connection refused",
        "the sidecar of chat-a (/metrics) does not answer: connection refused",
    ]


def test_the_sidecars_ports_are_those_of_its_arguments(cluster, watch):
    cluster.answers[api.PODS] = items(
        pod("chat-a", "10.0.0.1", arguments=["--metrics-port", "9999", "--dapr-public-port", "3999"])
    )
    cluster.answers[api.metadata("chat-a", 3999)] = runtime(4)
    cluster.answers[api.metrics("chat-a", 9999)] = counters(rebalanced_total=(1, 1))
    found = watch().observe().pods[0]
    assert (found.active_actors, found.rebalanced) == ({"UserSessionActor": 4}, 2)


@pytest.mark.parametrize("nonsense", ["<html>", {"actorRuntime": {"activeActors": [{}]}}, [], None])
def test_an_answer_that_is_none_of_daprs_is_a_problem_not_the_end(cluster, watch, nonsense):
    cluster.answers[api.metadata("chat-a")] = (200, nonsense)
    sample = watch().observe()
    assert len(sample.problems) == 1
    assert sample.problems[0].startswith("the sidecar of chat-a (/v1.0/metadata) answers what is not understood: ")
    assert sample.pods[1].active_actors == {"UserSessionActor": 10}


def test_a_cluster_that_is_gone_is_one_problem(cluster, watch, monkeypatch):
    monkeypatch.setattr(kube, "READ_SECONDS", 0.2)
    watching = watch()
    for path in list(cluster.answers):
        cluster.answers[path] = lambda: time.sleep(0.5) or (200, {})
    sample = watching.observe()
    assert sample.problems == [f"no answer within 0.2 s of the cluster's API at {cluster.url}"]


# ---- check


def test_check_is_content_with_a_cluster_as_it_should_be(cluster, watch):
    watch().check()
    assert api.NODE not in cluster.asked, "CPU and memory may be missing"


def test_a_wrong_namespace_is_told_from_a_wrong_deployment(refusal):
    assert refusal(namespace="nope") == "there is no namespace nope: --namespace names another"
    assert refusal(deployment="nope") == (
        "there is no Deployment nope in namespace daca: --deployment and --namespace name what is under load"
    )


def test_pods_without_a_sidecar_are_named(cluster, refusal):
    cluster.answers[api.PODS] = items(pod("chat-a", "10.0.0.1", containers=("chat-service",)))
    assert refusal().startswith("pod chat-a of Deployment chat-service has no Dapr sidecar, so it hosts no actors")


@pytest.mark.parametrize("schedulers", [items(), items(api.scheduler("--placement-enabled=false"))])
def test_a_namespace_where_nothing_places_names_the_option(cluster, refusal, schedulers):
    cluster.answers[api.PLACEMENT] = items()
    cluster.answers[api.SCHEDULERS] = schedulers
    assert refusal() == (
        "namespace dapr-system has no pod of Dapr's placement (app=dapr-placement-server): "
        "--dapr-namespace names another"
    )


def test_placement_that_does_not_tell_its_table_names_the_value(cluster, refusal):
    cluster.answers[api.state()] = (404, "404 page not found")
    assert refusal() == (
        "placement (dapr-system/dapr-placement-server-0) does not tell its table: Dapr's chart does with "
        "dapr_placement.metadataEnabled=true"
    )


@pytest.mark.parametrize(
    ("path", "right", "namespace"),
    [
        (api.DEPLOYMENT, "get deployments", "daca"),
        (api.PODS, "list pods", "daca"),
        (api.metadata("chat-a"), "get pods/proxy", "daca"),
        (api.PLACEMENT, "list pods", "dapr-system"),
        (api.state(), "get pods/proxy", "dapr-system"),
    ],
)
def test_a_missing_permission_names_verb_resource_namespace_and_the_mend(cluster, refusal, path, right, namespace):
    cluster.answers[path] = api.forbidden()
    verb, resource = right.split()
    group = "apps" if resource == "deployments" else ""
    assert refusal() == (
        f"{api.USER} may not {right} in namespace {namespace}: bind it a Role with "
        f'{{apiGroups: ["{group}"], resources: [{resource}], verbs: [{verb}]}}, as charts/load-tests does'
    )


def test_credentials_that_are_not_taken(cluster, refusal):
    cluster.answers["/version"] = (401, {"message": "Unauthorized"})
    assert refusal() == "the cluster's API does not take these credentials: renew those of the kubeconfig"


def test_check_waits_for_an_election(cluster, watch, refusal, monkeypatch):
    answers = [(200, None), unreachable(), table("10.0.0.1:50002")]
    cluster.answers[api.state()] = lambda: answers.pop(0)
    watch().check()
    assert answers == []
    monkeypatch.setattr(observer, "ELECTION_SECONDS", 0)
    cluster.answers[api.state()] = unreachable("i/o timeout")
    assert refusal() == (
        "placement has no leader: placement (dapr-system/dapr-placement-server-0) does not answer: i/o timeout"
    )


def test_no_api_is_one_line(cluster, refusal):
    cluster.kubeconfig.write_text(cluster.kubeconfig.read_text().replace(cluster.url, "http://127.0.0.1:9"))
    assert refusal() == (
        "the cluster's API at http://127.0.0.1:9 does not answer: "
        "Failed to establish a new connection: [Errno 111] Connection refused"
    )


def test_an_unknown_context_and_a_missing_kubeconfig_are_named(cluster, refusal, monkeypatch, tmp_path):
    assert refusal(kube_context="nope").startswith(f"kubeconfig {cluster.kubeconfig}, --kube-context nope: ")
    missing = str(tmp_path / "missing")
    monkeypatch.setenv("KUBECONFIG", missing)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert refusal() == f"no cluster: there is no kubeconfig {missing}; set KUBECONFIG, or run in a pod"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert refusal().startswith("this pod's service account: ")


def test_versions_are_those_of_kubernetes_dapr_and_the_images(cluster, watch):
    cluster.answers[api.PODS] = items(pod("chat-a", "10.0.0.1"), pod("chat-b", "10.0.0.2", ready=False))
    assert watch().versions() == {
        "Kubernetes": "v1.34.4",
        "Dapr control plane": "1.2.3",
        "Dapr sidecar": "1.18.1",
        "image of chat-service": "registry/chat-service:1.2.3",
    }


def test_what_is_watched_are_options_of_the_load_tests():
    assert Watched.model_validate(Options()) == Watched()
    changed = Options(namespace="other", placement_seconds=5, dapr_namespace="dapr")
    assert Watched.model_validate(changed) == Watched(namespace="other", placement_seconds=5, dapr_namespace="dapr")


# ---- rows and tables


def sampled(*pods, hosts=()):
    return PlacementSample(
        at=1,
        version=3,
        hosts=[Host(address=address, app_id="chat-service", actor_types=["UserSessionActor"]) for address in hosts],
        pods=list(pods),
    )


def one_pod(name, ip, active, **more):
    fields = {"node": "node-1", "ready": True, "leaving": False, "restarts": 0, **more}
    return PodSample(name=name, ip=ip, active_actors=active, **fields)


def test_a_row_has_the_share_of_a_pod_against_the_ideal_and_the_rings():
    sample = sampled(
        one_pod("chat-a", "10.0.0.1", {"UserSessionActor": 30}),
        one_pod("chat-b", "10.0.0.2", {"UserSessionActor": 10}),
        hosts=["10.0.0.1:50002", "10.0.0.2:50002"],
    )
    first, second = view.rows(sample)
    assert (first.share, second.share, first.ideal) == (0.75, 0.25, 0.5)
    assert first.ring + second.ring == pytest.approx(1)
    assert view.cells(first)[view.COLUMNS.index("of ideal")] == "1.50"


def test_pods_that_come_or_go_and_hosts_without_a_pod_have_rows_too():
    sample = sampled(
        one_pod("chat-a", "10.0.0.1", {"UserSessionActor": 4}, leaving=True, ready=False),
        one_pod("chat-b", "", None, ready=False),
        one_pod("chat-c", "10.0.0.3", {"UserSessionActor": 0}),
        hosts=["10.0.0.1:50002", "10.0.0.9:50002"],
    )
    found = [(row.pod, row.state, row.actor_type, row.active, row.share) for row in view.rows(sample)]
    assert found == [
        ("chat-a", "leaving", "UserSessionActor", 4, 1.0),
        ("chat-b", "starting, not in the table", "", None, None),
        ("chat-c", "ready, not in the table", "UserSessionActor", 0, 0.0),
        ("", "gone", "UserSessionActor", None, None),
    ]


def test_containers_beside_the_sidecar_are_the_app():
    containers = {
        "chat-service": Container(cpu_cores=0.5, memory_bytes=2**20),
        "log-shipper": Container(cpu_cores=0.25, memory_bytes=2**20),
        "daprd": Container(memory_bytes=2**21),
    }
    row = view.rows(sampled(one_pod("chat-a", "10.0.0.1", {}, containers=containers)))[0]
    assert (row.app, row.sidecar) == (Container(cpu_cores=0.75, memory_bytes=2**21), Container(memory_bytes=2**21))
    assert view.cells(row)[-2:] == ["0.75, 2", "-, 2"]


def test_where_the_scheduler_places_every_host_has_the_same_part():
    sample = sampled(
        one_pod("chat-a", "10.0.0.1", {"UserSessionActor": 30}), one_pod("chat-b", "10.0.0.2", {"UserSessionActor": 10})
    )
    sample.hosts = [
        Host(address=f"10.0.0.{number}:50002", app_id="", actor_types=["UserSessionActor"]) for number in (1, 2)
    ]
    assert all(row.ring != 0.5 for row in view.rows(sample))
    sample.placer = "scheduler"
    assert [row.ring for row in view.rows(sample)] == [0.5, 0.5]
    assert view.title(sample) == "2 hosts, 40 active actors, placed by the scheduler"


def test_a_sample_without_anything_has_no_rows():
    assert view.rows(PlacementSample(at=1)) == []
    assert view.title(PlacementSample(at=1)) == "0 hosts, 0 active actors, placement table version unknown"
