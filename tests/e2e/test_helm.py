"""A small release beside the one of `make up`: Helm 3 installs it, Helm 3 and 4 take turns at it, and it goes again.

The tests are the life of one release, in this order.
"""

import json
import shlex
import subprocess
from dataclasses import replace
from uuid import uuid4

import pytest

from cluster import binaries, deploy, rest
from cluster.dapr import control_plane
from cluster.deploy import CHART, RELEASE
from cluster.forward import Forward
from cluster.kube import Kube, wait_until

pytestmark = pytest.mark.e2e

SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}}
ONE_SMALL_POD = {"replicas": 1, "resources": SMALL, "sidecar": {"resources": SMALL}}
INJECTOR = "dapr-sidecar-injector"
USERS_SECRET = "gemini-api-key"


QUOTA = {"requests.cpu": "4", "requests.memory": "8Gi", "limits.cpu": "40", "limits.memory": "16Gi"}
RANGE = {"type": "Container", "min": {"memory": "8Mi"}, "max": {"cpu": "2", "memory": "2Gi"}}


class Release:
    """A release in a namespace of its own, as a strict house has them.

    It has a number for a name, holds its pods to the "restricted" Pod Security Standard, has a quota that wants
    requests and limits of every container, and bounds for them.
    """

    def __init__(self, running, values):
        self.kube = Kube(replace(running.target, namespace=str(uuid4().int)[:8]))
        self.namespace = self.kube.target.namespace
        self._values = values

    def helm(self, major, *arguments):
        """Runs Helm 3 or 4 on the namespace; what it printed, and its exit code."""
        target = self.kube.target
        binary = {3: binaries.helm3, 4: binaries.helm}[major]()
        context = ["--kube-context", target.context] if target.context else []
        return subprocess.run(
            [binary, *arguments, "--namespace", self.namespace, *context],
            env=target.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def upgrade(self, major, *arguments):
        """`helm upgrade --install`; waits until it works."""
        command = ["upgrade", "--install", RELEASE, CHART, "--values", self._values, *arguments]
        done = self.helm(major, *command, "--wait", "--timeout", "120s")
        assert done.returncode == 0, done.stdout

    def test(self, major):
        """`helm test --logs`."""
        return self.helm(major, "test", RELEASE, "--logs", "--timeout", "120s")

    def pods(self, app):
        """The pods of a service that are there to stay."""
        found = self.kube.pods(self.namespace, f"app.kubernetes.io/name={app}")
        return [pod for pod in found if pod.metadata.deletion_timestamp is None]

    def log_level(self, name):
        """What the pods of a Deployment are told."""
        deployment = self.kube.apps.read_namespaced_deployment(name, self.namespace)
        return next(e.value for e in deployment.spec.template.spec.containers[0].env if e.name == "LOG_LEVEL")

    def secrets(self):
        """What the chart made once, by the secret's name."""
        found = self.kube.core.list_namespaced_secret(self.namespace, field_selector="type=Opaque").items
        return {secret.metadata.name: secret.data for secret in found if secret.metadata.name != USERS_SECRET}

    def type(self, line):
        """Types a line that starts with `kubectl`, as it was printed; what it prints."""
        tool, *arguments = shlex.split(line)
        assert tool == "kubectl"
        return self.kube.target.kubectl(*arguments)

    def chat(self, text):
        """The reply to a user's message; a port-forward to the Service might end at a pod that is on its way out."""
        pod = self.kube.ready_pods(self.namespace, "app.kubernetes.io/name=chat-service")[0]
        with Forward(self.kube, self.namespace, f"pod/{pod.metadata.name}", 8010) as forward:
            answer = rest.call("POST", f"{forward.url}/chat/", {"user_id": "junaid", "text": text})
        assert answer.status == 200, answer.text
        return answer.json()["reply"]


@pytest.fixture(scope="module")
def release(cluster, tmp_path_factory):
    """Installed by Helm 3, from the images that the running release has."""
    running = json.loads(cluster.helm("get", "values", RELEASE, "--all", "--output", "json"))
    parts: dict[str, dict] = {
        "chatService": ONE_SMALL_POD,
        "agentMemoryService": ONE_SMALL_POD,
        "offlineModel": {"resources": SMALL},
        "placementRelay": {},
        "redis": {"resources": SMALL},
    }
    values = {name: {**settings, "image": running[name]["image"]} for name, settings in parts.items()}
    path = tmp_path_factory.mktemp("helm") / "values.json"
    values["redis"]["auth"] = {"password": "from a file with a line end\n"}
    defaults = {"resources": {"limits": {"cpu": "1"}}}
    path.write_text(json.dumps({**values, "defaults": defaults, "imagePullSecrets": running["imagePullSecrets"]}))

    release = Release(cluster.kube, path)
    core, namespace = release.kube.core, release.namespace
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.create_namespace({"metadata": {"name": namespace, "labels": labels}})
    try:
        core.create_namespaced_resource_quota(namespace, {"metadata": {"name": "house"}, "spec": {"hard": QUOTA}})
        core.create_namespaced_limit_range(namespace, {"metadata": {"name": "house"}, "spec": {"limits": [RANGE]}})
        core.create_namespaced_secret(namespace, {"metadata": {"name": USERS_SECRET}, "stringData": {"key": "mine"}})
        release.upgrade(3)
        release.chat("Hi there")
        yield release
    finally:
        core.delete_namespace(namespace)


def test_what_helm_3_installs_passes_its_test(release):
    done = release.test(3)
    assert done.returncode == 0, done.stdout
    assert "Each of the 2 pods that ask for a Dapr sidecar has one." in done.stdout
    assert "All is well." in done.stdout


def test_a_release_changes_hands_between_helm_3_and_4(release):
    secrets = release.secrets()
    assert secrets.keys() == {"redis", "app-token"}

    release.upgrade(4, "--set", "chatService.logLevel=DEBUG")
    assert release.log_level("chat-service") == "DEBUG"
    done = release.test(4)
    assert done.returncode == 0, done.stdout
    assert "All is well." in done.stdout
    release.upgrade(3)
    assert release.log_level("chat-service") == "INFO"

    # Helm 4 goes on with client-side apply where Helm 3 began, unless it is told.
    release.upgrade(4, "--server-side=true", "--set", "offlineModel.logLevel=DEBUG")
    assert release.log_level("offline-model") == "DEBUG"
    release.upgrade(3)
    assert release.log_level("offline-model") == "INFO"
    assert release.secrets() == secrets
    assert "Hi there" in release.chat("What did I say before?")


@pytest.fixture
def injector_away(cluster):
    """Dapr's injector does not answer until the test says so, by calling this, or ends."""
    kube = cluster.kube
    namespace = control_plane(kube).namespace
    replicas = kube.apps.read_namespaced_deployment(INJECTOR, namespace).spec.replicas

    def scale(count):
        kube.apps.patch_namespaced_deployment_scale(INJECTOR, namespace, {"spec": {"replicas": count}})

    def back():
        scale(replicas)
        deploy.wait_for_injector(kube)

    try:
        scale(0)
        assert wait_until(lambda: not kube.pods(namespace, f"app={INJECTOR}"), 60)
        yield back
    finally:
        back()


@pytest.mark.bare  # It takes Dapr's injector away, which another cluster may need for others.
def test_pods_without_a_sidecar_are_named_with_the_mend(cluster, release, injector_away):
    (before,) = release.pods("chat-service")
    release.kube.core.delete_namespaced_pod(before.metadata.name, release.namespace)
    (pod,) = cluster.wait_for(lambda: release.pods("chat-service"))
    assert [container.name for container in pod.spec.containers] == ["chat-service"]
    name, mend = pod.metadata.name, f"kubectl rollout restart deployment -n {release.namespace} chat-service"

    for major in (3, 4):
        told = release.test(major)
        assert told.returncode != 0
        assert f"\n  {name}\n" in told.stdout
        assert f"\n  {mend}\n" in told.stdout
        assert "Two turns" not in told.stdout
    for told in (release.helm(major, "test", RELEASE) for major in (3, 4)):
        assert name in told.stdout  # without --logs, too

    for major in (3, 4):
        notes = release.helm(major, "upgrade", RELEASE, CHART, "--reuse-values", "--dry-run=server").stdout
        assert f"WITHOUT A DAPR SIDECAR when this upgrade began:\n  {name}\n" in notes
        lines = [line.strip() for line in notes.splitlines()]
        (listing,) = [line for line in lines if line.startswith("kubectl get pods -n")]
        assert [line.split()[0] for line in release.type(listing).splitlines()[1:]] == [name]
        assert f"{mend} agent-memory-service" in lines

    injector_away()
    release.type(mend)
    release.type(f"kubectl rollout status deployment -n {release.namespace} chat-service --timeout=120s")
    done = release.test(4)
    assert done.returncode == 0, done.stdout


def test_what_is_uninstalled_leaves_the_volume_and_the_users_secret(release):
    done = release.helm(3, "uninstall", RELEASE, "--wait", "--timeout", "120s")
    assert done.returncode == 0, done.stdout
    kinds = "deployments,statefulsets,services,configmaps,secrets,serviceaccounts,roles,rolebindings,pvc"
    kinds += ",components.dapr.io,configurations.dapr.io,subscriptions.dapr.io,resiliencies.dapr.io"
    left = release.type(f"kubectl get {kinds} -n {release.namespace} -o name").split()
    assert set(left) == {
        "configmap/kube-root-ca.crt",
        "serviceaccount/default",
        f"secret/{USERS_SECRET}",
        "persistentvolumeclaim/data-redis-0",
    }

    # Pods outlast the release. Without its Redis an old one drains for all its grace period and still hosts actors.
    hosts = "app.kubernetes.io/name=chat-service"
    assert wait_until(lambda: not release.kube.pods(release.namespace, hosts), 90)
    release.upgrade(4)
    assert "Your last message was" in release.chat("What did I say before?")
