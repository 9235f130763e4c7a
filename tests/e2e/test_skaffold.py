"""Skaffold on the bare node, from a copy of the checkout and in a namespace of its own: run, verify, dev, Ctrl-C."""

import json
import re
import shutil
import signal
from uuid import uuid4

import pytest
from support.skaffold import Skaffold

from cluster import rest
from cluster.bare.images import KEPT_TAGS
from cluster.bare.layout import REGISTRY
from cluster.client import CHAT
from cluster.content import SERVICES
from cluster.deploy import DAPR_NAMESPACE, RELEASE
from cluster.kube import is_ready
from cluster.shell import run
from cluster.target import BARE_KUBECONFIG
from cluster.versions import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.bare]

UP_SECONDS = 240
ROUTES = "images/chat-service/src/chat_service/routes.py"


class Release:
    """The release that Skaffold makes."""

    def __init__(self, cluster, namespace, skaffold):
        self.kube = cluster.kube
        self.wait_for = cluster.wait_for
        self.namespace = namespace
        self.skaffold = skaffold

    def pod(self, service):
        """The one pod of a service, once it is ready."""
        (pod,) = self.wait_for(lambda: one if len(one := self.pods(service)) == 1 else None, 60)
        return pod

    def pods(self, service):
        """The ready pods of a service."""
        return self.kube.ready_pods(self.namespace, f"app.kubernetes.io/name={service}")

    def kubectl(self, *arguments):
        return self.kube.target.kubectl("--namespace", self.namespace, *arguments)

    def releases(self):
        """The Helm releases of the namespace."""
        told = self.kube.target.helm("list", "--namespace", self.namespace, "--output", "json")
        return [release["name"] for release in json.loads(told)]


class Dev:
    """`skaffold dev` at work."""

    def __init__(self, release, process, log):
        self.release = release
        self.process = process
        self.log = log

    def said(self):
        return self.log.read_text(errors="replace")

    def forwarded(self, port):
        """Where Skaffold has led a port of the release to, the last time it did."""
        return re.findall(rf"remote port {port} -> (\S+)", self.said())[-1]

    def welcome(self):
        """What the chat service says; nothing while it starts."""
        try:
            answer = rest.call("GET", f"{self.forwarded(8010)}/", timeout_seconds=5)
        except rest.Unreachable:
            return ""
        return answer.json()["message"] if answer.status == 200 else ""

    def reply(self, user_id, text):
        """The reply to a message, once there is one."""

        def replied():
            body = {"user_id": user_id, "text": text}
            try:
                answer = rest.call("POST", f"{self.forwarded(8010)}/chat/", body)
            except rest.Unreachable:
                return ""
            return answer.json()["reply"] if answer.status == 200 else ""

        return self.release.wait_for(replied, 60)

    def change(self, path, old, new):
        file = self.release.skaffold.folder / path
        text = file.read_text()
        assert text.count(old) == 1
        file.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def release(cluster, tmp_path_factory):
    """What `skaffold run` has brought up; it is gone afterwards, and all that was made for it."""
    folder = tmp_path_factory.mktemp("skaffold")
    listed = run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT)
    for name in filter(lambda name: (ROOT / name).is_file(), listed.split("\0")):
        copy = folder / "checkout" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy)
    (folder / "checkout" / ".venv").symlink_to(ROOT / ".venv")
    namespace = f"skaffold-{uuid4().hex[:6]}"
    skaffold = Skaffold(folder / "checkout", folder / "home", BARE_KUBECONFIG, SKAFFOLD_NAMESPACE=namespace)
    made = Release(cluster, namespace, skaffold)
    try:
        done = skaffold.run("run")
        assert done.returncode == 0, done.stdout + done.stderr
        yield made
    finally:
        cluster.kube.target.kubectl("delete", "namespace", namespace, "--ignore-not-found")


@pytest.fixture(scope="module")
def dapr(cluster):
    """The pods of Dapr's control plane as they were before Skaffold came, and as they are."""

    def pods():
        return {pod.metadata.uid for pod in cluster.kube.pods(DAPR_NAMESPACE) if is_ready(pod)}

    return pods(), pods


@pytest.fixture(scope="module")
def dev(release, tmp_path_factory):
    """`skaffold dev`, once it watches for changes."""
    log = tmp_path_factory.mktemp("dev") / "dev.log"
    with release.skaffold.start("dev", log=log) as process:
        running = Dev(release, process, log)
        release.wait_for(lambda: "Watching for changes" in running.said() or process.poll() is not None, UP_SECONDS)
        assert process.poll() is None, running.said()
        yield running


def test_run_brings_up_what_production_runs(dapr, release):
    for service in SERVICES:
        for pod in release.pods(service):
            container = pod.spec.containers[0]
            assert re.fullmatch(rf"\S+/{service}:skaffold-[0-9a-f]{{64}}@sha256:[0-9a-f]{{64}}", container.image)
            assert container.security_context.read_only_root_filesystem
        found = release.kubectl("exec", f"deploy/{service}", "-c", service, "--", "pip", "list", "--format", "freeze")
        assert "uvicorn==" in found
        assert "watchfiles" not in found
    assert len(release.pods(CHAT)) == 2


def test_verify_holds_a_conversation(release):
    done = release.skaffold.run("verify")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[conversation] All is well." in done.stdout
    assert release.kubectl("get", "jobs", "--output", "name") == ""


def test_a_changed_line_is_served_without_a_build(dev, user_id):
    dev.reply(user_id, "Hi there")
    pod = dev.release.pod(CHAT)
    assert "Welcome" in dev.welcome()

    dev.change(ROUTES, "Welcome to", "A changed welcome to")
    dev.release.wait_for(lambda: "A changed welcome" in dev.welcome(), 60)
    # The actors that lived in the process live again.
    assert "Hi there" in dev.reply(user_id, "What did I say before?")
    assert dev.release.pod(CHAT).metadata.uid == pod.metadata.uid
    assert [status.restart_count for status in dev.release.pod(CHAT).status.container_statuses] == [0, 0]
    assert dev.said().count("Starting build") == 1


def test_a_pod_that_the_chart_replaces_has_what_was_synced(dev):
    dev.change(ROUTES, "Access /docs", "Do access /docs")
    dev.release.wait_for(lambda: "Do access" in dev.welcome(), 60)
    pod = dev.release.pod(CHAT)

    dev.change(
        "charts/daca/values-dev.yaml",
        "  replicas: 1\n  resources: &",
        "  replicas: 1\n  logLevel: WARNING\n  resources: &",
    )
    dev.release.wait_for(lambda: dev.said().count("Completed post-deploy hooks") == 2, UP_SECONDS)
    dev.release.wait_for(lambda: "Do access" in dev.welcome(), 60)
    assert dev.release.pod(CHAT).metadata.uid != pod.metadata.uid
    assert dev.said().count("Starting build") == 1


def test_the_nodes_registry_keeps_few_of_these_images(dev):
    for service in SERVICES:
        tags = rest.call("GET", f"http://{REGISTRY}/v2/{service}/tags/list").json()["tags"]
        assert 2 <= len([tag for tag in tags if tag.startswith("skaffold-")]) <= KEPT_TAGS


def test_ctrl_c_uninstalls_the_bundle_and_leaves_dapr(dapr, dev):
    before, now = dapr
    dev.process.send_signal(signal.SIGINT)
    assert dev.process.wait(60) == 0
    assert dev.release.releases() == []
    assert RELEASE not in dev.release.kubectl("get", "deployments", "--output", "name")
    assert now() == before
