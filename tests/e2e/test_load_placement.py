"""The placement view of the load tests, on the cluster."""

import base64
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import kubernetes
import pytest
import yaml
from actor_load.errors import LoadError
from actor_load.placement.observer import Observer, Watched
from actor_load.placement.ring import Ring, predicted_moved

pytestmark = pytest.mark.e2e

LOAD_TESTS = Path(__file__).parents[2] / "load-tests"
ACTOR = "UserSessionActor"
NO_TURN = {"turn_id": "nobody", "lease_token": ""}
IN_APP = [
    {"apiGroups": [""], "resources": ["namespaces", "pods/proxy"], "verbs": ["get"]},
    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
]
IN_DAPR = [
    {"apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
]


@pytest.fixture
def kubeconfig(cluster, monkeypatch):
    """The cluster's, as the user of a command has it."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kube.target.kubeconfig))
    return {"namespace": cluster.namespace, "kube_context": cluster.kube.target.context or ""}


@pytest.fixture
def observer(kubeconfig):
    with Observer(Watched(**kubeconfig)) as watching:
        watching.check()
        yield watching


def addresses(sample):
    """Of the hosts of the actor type."""
    return [host.address for host in sample.hosts if ACTOR in host.actor_types]


def active(sample):
    """Pod -> active actors."""
    return {pod.name: (pod.active_actors or {}).get(ACTOR, 0) for pod in sample.pods}


def host(cluster, actor_id):
    """The pod that an actor answers it lives in; it is activated by that."""
    return cluster.actor(actor_id, "RenewTurn", NO_TURN)["host"]


def test_a_sample_names_the_pods_and_counts_an_actor_that_was_just_called(cluster, observer, user_id):
    cluster.settle()
    before = observer.observe()
    pods = {pod.metadata.name: pod.status.pod_ip for pod in cluster.pods("chat-service")}
    assert {pod.name: pod.ip for pod in before.pods} == pods
    assert {address.rpartition(":")[0] for address in addresses(before)} == set(pods.values())
    assert all(pod.ready and pod.placed and pod.pending_calls is not None for pod in before.pods)
    assert before.version
    assert before.problems == []
    where = host(cluster, user_id)
    assert active(observer.observe())[where] > active(before)[where]


def test_the_ring_names_the_pod_of_every_actor(cluster, observer, user_id):
    sample = observer.observe()
    pods = {pod.ip: pod.name for pod in sample.pods}
    ring = Ring(addresses(sample))
    ids = [f"{user_id}-{number}" for number in range(200)]
    predicted = {actor_id: pods[ring.host_of(actor_id).rpartition(":")[0]] for actor_id in ids}
    assert {actor_id: host(cluster, actor_id) for actor_id in ids} == predicted
    assert set(predicted.values()) == set(pods.values())


def test_cpu_and_memory_of_all_containers_are_told(observer):
    end = time.monotonic() + 60  # a kubelet measures every 10 to 15 s, and it takes two
    while True:
        sample = observer.observe()
        used = [pod.containers for pod in sample.pods]
        if all(container.cpu_cores is not None for containers in used for container in containers.values()):
            break
        assert time.monotonic() < end, sample
        time.sleep(1)
    for containers in used:
        assert set(containers) == {"chat-service", "daprd", "placement-relay"}
        assert all(
            0 <= container.cpu_cores < 64 and container.memory_bytes > 2**20 for container in containers.values()
        )


def test_a_deleted_pod_changes_the_table_and_actors_move(cluster, observer, user_id):
    ids = [f"{user_id}-{number}" for number in range(60)]
    for actor_id in ids:
        host(cluster, actor_id)
    before = observer.observe()
    gone, stays = (pod.name for pod in before.pods)
    cluster.close()  # its port-forward may be one of that pod
    cluster.delete_pod(gone)
    leaving = cluster.wait_for(lambda: [pod for pod in observer.observe().pods if pod.name == gone and pod.leaving])
    assert not leaving[0].ready
    cluster.settle()
    after = observer.observe()
    assert after.version > before.version
    assert gone not in active(after)
    counters = {pod.name: pod for pod in before.pods}, {pod.name: pod for pod in after.pods}
    assert counters[1][stays].rebalanced > counters[0][stays].rebalanced, "the new pod got none of the other's actors"
    moved = predicted_moved(addresses(before), addresses(after), ids)
    old, new = Ring(addresses(before)), Ring(addresses(after))
    assert moved == sum(old.host_of(actor_id) != new.host_of(actor_id) for actor_id in ids) / len(ids) > 0
    pods = {pod.ip: pod.name for pod in after.pods}
    assert all(host(cluster, actor_id) == pods[new.host_of(actor_id).rpartition(":")[0]] for actor_id in ids)


def test_once_prints_the_table(cluster, kubeconfig):
    options = ["--namespace", kubeconfig["namespace"], "--kube-context", kubeconfig["kube_context"]]
    command = [sys.executable, "-m", "actor_load.placement", "--once", *options]
    said = subprocess.run(command, cwd=LOAD_TESTS, capture_output=True, text=True, check=True, env=os.environ)
    assert said.stderr == ""
    for pod in cluster.pods("chat-service"):
        row = next(line for line in said.stdout.splitlines() if pod.metadata.name in line)
        assert " ready " in row


def refusal(kubeconfig, **wrong):
    """What a check says."""
    with pytest.raises(LoadError) as caught, Observer(Watched(**{**kubeconfig, **wrong})) as watching:
        watching.check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_wrong_targets_are_one_line_each(kubeconfig):
    assert refusal(kubeconfig, namespace="nowhere") == "there is no namespace nowhere: --namespace names another"
    assert refusal(kubeconfig, deployment="nobody").startswith("there is no Deployment nobody in namespace ")
    assert "has no Dapr sidecar" in refusal(kubeconfig, deployment="offline-model")
    assert refusal(kubeconfig, dapr_namespace="default").startswith("namespace default has no pod of Dapr's placement ")
    assert "--kube-context nobody: " in refusal(kubeconfig, kube_context="nobody")


class Account:
    """A ServiceAccount with the rights that it is given, and a kubeconfig of its own."""

    def __init__(self, cluster, folder):
        self.name = f"e2e-{uuid4().hex[:8]}"
        self._namespace = cluster.namespace
        self._core = cluster.kube.core
        self._rights = kubernetes.client.RbacAuthorizationV1Api(cluster.kube.client)
        self._roles = []
        self._core.create_namespaced_service_account(self._namespace, {"metadata": {"name": self.name}})
        request = {"spec": {"expirationSeconds": 600}}
        token = self._core.create_namespaced_service_account_token(self.name, self._namespace, request).status.token
        configuration = cluster.kube.client.configuration
        authority = Path(configuration.ssl_ca_cert).read_bytes()
        server = {"server": configuration.host, "certificate-authority-data": base64.b64encode(authority).decode()}
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "current-context": "it",
                    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                    "clusters": [{"name": "it", "cluster": server}],
                    "users": [{"name": "it", "user": {"token": token}}],
                }
            )
        )

    def allow(self, namespace, rules):
        """Gives it a Role."""
        body: Any = {"metadata": {"name": self.name}, "rules": rules}
        binding: Any = {
            "metadata": {"name": self.name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": self.name},
            "subjects": [{"kind": "ServiceAccount", "name": self.name, "namespace": self._namespace}],
        }
        self._roles.append(namespace)
        self._rights.create_namespaced_role(namespace, body)
        self._rights.create_namespaced_role_binding(namespace, binding)

    def remove(self):
        """With all it was given."""
        for namespace in self._roles:
            self._rights.delete_namespaced_role_binding(self.name, namespace)
            self._rights.delete_namespaced_role(self.name, namespace)
        self._core.delete_namespaced_service_account(self.name, self._namespace)


def test_a_missing_permission_is_named_and_the_named_rights_are_enough(cluster, tmp_path, monkeypatch):
    account = Account(cluster, tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(account.kubeconfig))
    watched = {"namespace": cluster.namespace}
    who = f"system:serviceaccount:{cluster.namespace}:{account.name}"
    try:
        assert refusal(watched) == (
            f"{who} may not get deployments in namespace {cluster.namespace}: bind it a Role with "
            '{apiGroups: ["apps"], resources: [deployments], verbs: [get]}, as charts/load-tests does'
        )
        account.allow(cluster.namespace, IN_APP)
        # The authorizer learns of a new binding by a watch, a moment later.
        missing = f"{who} may not list pods in namespace dapr-system: "
        cluster.wait_for(lambda: refusal(watched).startswith(missing))
        account.allow("dapr-system", IN_DAPR)
        with Observer(Watched(**watched)) as watching:

            def allowed():
                try:
                    watching.check()
                except LoadError:
                    return False
                return True

            cluster.wait_for(allowed)
            sample = watching.observe()
            assert len(sample.pods) == len(addresses(sample)) == len(cluster.pods("chat-service"))
            assert len(sample.problems) == 1
            assert f"does not tell CPU and memory: {who} may not get nodes/proxy of the cluster: " in sample.problems[0]
            assert watching.observe().problems == []
    finally:
        account.remove()


def test_an_api_that_is_not_there_is_one_line(cluster, tmp_path, monkeypatch):
    dead = tmp_path / "kubeconfig"
    server = cluster.kube.client.configuration.host
    text = Path(cluster.kube.target.kubeconfig).read_text()
    assert server in text
    dead.write_text(text.replace(server, "https://127.0.0.1:9"))
    monkeypatch.setenv("KUBECONFIG", str(dead))
    said = refusal({"namespace": cluster.namespace})
    assert said.startswith("the cluster's API at https://127.0.0.1:9 does not answer: ")
    assert said.endswith("Connection refused")
