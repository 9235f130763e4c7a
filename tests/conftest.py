"""The cluster of the end-to-end tests: the one that `make up` made. A failure leaves evidence in .evidence/."""

import json
import os
import time
from contextlib import closing, contextmanager
from uuid import uuid4

import pytest
import urllib3
from kubernetes.client import ApiException

from cluster import evidence, placement, rest
from cluster.client import CHAT, MEMORY, Client
from cluster.dapr import INJECTED, Sidecar
from cluster.deploy import CHART, RELEASE
from cluster.errors import CommandError
from cluster.forward import Forward, Reach
from cluster.kube import Kube, is_ready, wait_until
from cluster.target import recorded

ROLLOUT_SECONDS = 180
TEST_SECONDS = 300
"""Of a test on a cluster that has no time-out of its own: pods come and go in it."""

# Tests type `make` as a user does, also when make has started them: then it would say more than it says to a user.
for variable in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(variable, None)


class Cluster:
    """What a test does on the cluster, in the words of the project."""

    def __init__(self, kube, reach):
        self.kube = kube
        self.reach = reach
        self.client = Client(reach)
        self.namespace = kube.target.namespace
        self._sidecar = None

    def chat(self, body, *, key=None, url=None):
        """POST /chat/ as it is, whatever the answer."""
        headers = {"Idempotency-Key": key} if key else {}
        return rest.call("POST", f"{url or self.reach.url(CHAT)}/chat/", body, headers=headers)

    def memory(self, method, path, body=None):
        """A request to agent-memory-service as it is, whatever the answer."""
        return rest.call(method, f"{self.reach.url(MEMORY)}/{path}", body)

    def said(self, session_id, entries):
        """The transcript of a session, once it has as many entries."""
        history = []

        def arrived():
            history[:] = self.client.transcript(session_id)
            return len(history) >= entries

        assert wait_until(arrived, 30), f"{len(history)} of {entries} entries: {history}"
        return history

    def pods(self, app):
        """The ready pods of ``chat-service``, ``agent-memory-service`` or ``offline-model``."""
        return self.kube.ready_pods(self.namespace, f"app.kubernetes.io/name={app}")

    @contextmanager
    def pod_url(self, pod, port):
        """The address of one pod."""
        with Forward(self.kube, self.namespace, f"pod/{pod.metadata.name}", port) as forward:
            yield forward.url

    def sidecar(self, pod):
        """The sidecar of one pod, to be used in a ``with`` statement."""
        return Sidecar(self.kube, pod)

    def actor(self, user_id, method, arguments=None):
        """Calls a method of a user's actor through the sidecar of a chat pod; its JSON answer."""
        if self._sidecar is None or self._sidecar.pod not in {pod.metadata.name for pod in self.pods(CHAT)}:
            self.close()
            self._sidecar = self.sidecar(self.pods(CHAT)[0])
        answer = self._sidecar.actor(user_id, method, arguments)
        assert answer.status == 200, answer.text
        return answer.json()

    def close(self):
        """Ends the port-forward that :meth:`actor` keeps."""
        if self._sidecar is not None:
            self._sidecar.close()
            self._sidecar = None

    def redis(self, *command):
        """What redis-cli answers in the Redis pod."""
        return self.kube.target.kubectl(
            "exec", "-n", self.namespace, "redis-0", "-c", "redis", "--", "redis-cli", *command
        )

    def delete_pod(self, name):
        """Deletes a pod gracefully, without waiting for its end."""
        self.kube.core.delete_namespaced_pod(name, self.namespace)

    def log(self, pod, container):
        """The JSON lines that a container has logged."""
        answer = self.kube.core.read_namespaced_pod_log(
            pod.metadata.name, self.namespace, container=container, _preload_content=False
        )
        return [json.loads(line) for line in answer.data.splitlines()]

    def helm(self, *arguments):
        """Runs helm in the release's namespace; its output."""
        return self.kube.target.helm(*arguments, "--namespace", self.namespace)

    def upgrade(self, *arguments):
        """`helm upgrade` of the release with its present values and the ones given; waits for the rollout."""
        self.helm("upgrade", RELEASE, CHART, "--reuse-values", *arguments, "--wait", "--timeout", f"{ROLLOUT_SECONDS}s")
        self.settle()

    def roll_back(self, revision):
        """`helm rollback`; waits for the rollout."""
        self.helm("rollback", RELEASE, str(revision), "--wait", "--timeout", f"{ROLLOUT_SECONDS}s")
        self.settle()

    def revision(self):
        """The number of the release's present revision."""
        return json.loads(self.helm("status", RELEASE, "--output", "json"))["version"]

    def settle(self):
        """Returns once all pods of the namespace are ready, none of an old rollout is left, and placement knows them.

        After placement itself has moved, a sidecar has an old table until it has found it.
        """

        def settled():
            pods = [pod for pod in self.kube.pods(self.namespace) if pod.status.phase != "Succeeded"]
            return all(is_ready(pod) for pod in pods) and self._placed() == {
                pod.status.pod_ip for pod in self.pods(CHAT)
            }

        assert wait_until(settled, ROLLOUT_SECONDS), [pod.metadata.name for pod in self.kube.pods(self.namespace)]

    def _placed(self):
        """The addresses of the actors' hosts, as placement has them."""
        try:
            hosts = placement.hosts(self.kube)
        except CommandError:  # no leader yet
            return set()
        return {host["name"].rpartition(":")[0] for host in hosts if host.get("entities")}

    def wait_for(self, reached, timeout_seconds=30):
        """Asks until ``reached`` gives something true, and returns that."""
        end = time.monotonic() + timeout_seconds
        while not (found := reached()):
            assert time.monotonic() < end, f"not reached after {timeout_seconds} s"
            time.sleep(0.5)
        return found


@pytest.fixture(scope="session")
def cluster():
    """The running cluster; without one every test that needs it fails and says how to get it."""
    try:
        kube = Kube(recorded("", ""))
        ready = kube.ready_pods(kube.target.namespace, INJECTED)
    except (CommandError, ApiException, urllib3.exceptions.HTTPError) as error:
        pytest.fail(f"these tests need the cluster of `make up`: {error}", pytrace=False)
    if not ready:
        pytest.fail("no pod of the bundle is ready: `make up` mends that, `make status` shows it", pytrace=False)
    with Reach(kube) as reach, closing(Cluster(kube, reach)) as running:
        yield running


@pytest.fixture
def user_id():
    """A user that nobody has met."""
    return f"e2e-{uuid4().hex[:12]}"


def pytest_collection_modifyitems(config, items):
    """Tests on a cluster may take longer. On another than the bare node, that one's tests are left out."""
    for item in items:
        if item.get_closest_marker("e2e") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))
    try:
        on_bare_node = recorded("", "").cluster == "bare"
    except CommandError:  # no cluster is up: the fixture says so
        return
    others = [] if on_bare_node else [item for item in items if item.get_closest_marker("bare")]
    if others:
        items[:] = [item for item in items if item not in others]
        config.hook.pytest_deselected(items=others)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Collects evidence of the cluster when a test on it fails."""
    report = yield
    running = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(running, Cluster):  # a parameter may have that name, too
        try:
            report.sections.append(("evidence", str(evidence.collect(running.kube, item.name))))
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            report.sections.append(("evidence", f"none: the cluster's API does not answer: {error}"))
    return report
