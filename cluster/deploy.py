"""Puts Dapr and the bundle on a cluster with Helm, and waits until they work."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kubernetes.client import ApiException

from cluster import binaries, evidence
from cluster.actions import Action
from cluster.dapr import SIDECAR, control_plane, definitions
from cluster.engine import ENGINE_CLUSTERS
from cluster.errors import CommandError
from cluster.kube import Kube, message_of, wait_until
from cluster.steps import say, step
from cluster.target import Target
from cluster.versions import ROOT, VERSIONS

DAPR_NAMESPACE: Final = "dapr-system"
DAPR_RELEASE: Final = "dapr"
DAPR_REPOSITORY: Final = "https://dapr.github.io/helm-charts/"
RELEASE: Final = "daca"
CHART: Final = ROOT / "charts" / "daca"
VALUE_OF: Final = {
    "chat-service": "chatService",
    "agent-memory-service": "agentMemoryService",
    "offline-model": "offlineModel",
    "placement-relay": "placementRelay",
}
NODE_PORTS: Final = ROOT / "cluster" / "values-nodeports.yaml"
CLUSTER_VALUES: Final = {
    "bare": [NODE_PORTS, ROOT / "cluster" / "values-bare.yaml"],
    **{cluster: [NODE_PORTS] for cluster in ENGINE_CLUSTERS},
}
"""What a cluster needs of charts/daca beyond the defaults."""
HELM_TIMEOUT_SECONDS: Final = 300
INJECTOR_TIMEOUT_SECONDS: Final = 120


def make_namespace(kube: Kube) -> None:
    """Makes the target's namespace, if it is not there, and writes on it that it is ours."""
    name = kube.target.namespace
    if kube.namespace(name) is None:
        kube.core.create_namespace({"metadata": {"name": name}})
        kube.record_made(name, "namespace")


def dapr(kube: Kube) -> None:
    """Installs or updates Dapr; one that somebody else installed is used as it is."""
    namespace = kube.target.namespace
    found = control_plane(kube)
    if found and "dapr" not in kube.made_by_up(namespace):
        say(f"Dapr {found.version} is there already, in {found.namespace}; it stays as it is")
        return
    if "dapr" not in kube.made_by_up(namespace):
        if not definitions(kube):
            kube.record_made(namespace, "dapr-definitions")
        if kube.namespace(DAPR_NAMESPACE) is None:
            kube.record_made(namespace, "dapr-namespace")
        kube.record_made(namespace, "dapr")
    with step(f"Dapr {VERSIONS['DAPR_VERSION']} runs"), _explained(kube, DAPR_NAMESPACE):
        _upgrade(kube, DAPR_RELEASE, DAPR_NAMESPACE, _dapr_arguments(kube.target))


def wait_for_injector(kube: Kube) -> None:
    """Waits until a pod that asks for a sidecar gets one.

    The injector's webhook is allowed to fail: a pod that is admitted while it does not answer yet stays without a
    sidecar for ever. So we ask for such a pod, on trial, until the answer has one.
    """
    # The injector trusts the controllers that make pods, and of people only the group system:masters.
    core = kube.impersonating("system:serviceaccount:kube-system:replicaset-controller")
    pod = {
        "metadata": {
            "generateName": "injector-probe-",
            "annotations": {"dapr.io/enabled": "true", "dapr.io/app-id": "injector-probe"},
        },
        # With the fewest rights, so that no policy of the namespace refuses it.
        "spec": {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "app",
                    "image": "none",
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
    refused = ""

    def injects() -> bool:
        nonlocal refused
        try:
            admitted = core.create_namespaced_pod(kube.target.namespace, pod, dry_run="All")
        except ApiException as error:
            if error.status == 403 and "impersonate" in str(error.body):
                raise CommandError(
                    "your user may not impersonate system:serviceaccount:kube-system:replicaset-controller, which "
                    "finding out whether Dapr's injector works needs: use one with the ClusterRole cluster-admin"
                ) from error
            refused = f": {message_of(error)}"  # so far: a new namespace has no service account yet
            return False
        spec = admitted.spec
        return any(item.name == SIDECAR for item in [*spec.containers, *(spec.init_containers or [])])

    with step("Dapr's injector adds sidecars"), _explained(kube, DAPR_NAMESPACE):
        if not wait_until(injects, INJECTOR_TIMEOUT_SECONDS):
            raise CommandError(f"Dapr's injector adds no sidecar to pods, after {INJECTOR_TIMEOUT_SECONDS} s{refused}")


def daca(kube: Kube, images: Mapping[str, str], values: Sequence[Path], settings: Mapping[str, str]) -> None:
    """Installs or updates the bundle: ``images`` by service, values files of the user's, single values."""
    namespace = kube.target.namespace
    if _release_status(kube, RELEASE, namespace) and "release" not in kube.made_by_up(namespace):
        raise CommandError(
            f"a release {RELEASE!r} is in namespace {namespace!r}, and `make up` did not install it: "
            "take another one with NAMESPACE="
        )
    kube.record_made(namespace, "release")
    found = control_plane(kube)
    if found and found.namespace != DAPR_NAMESPACE:
        settings = {"placementRelay.placement": f"dapr-placement-server.{found.namespace}.svc:50005"} | dict(settings)
    with step("the chat and its memory run"), _explained(kube, namespace):
        _upgrade(kube, RELEASE, namespace, _daca_arguments(kube.target, images, values, settings))


def actions(
    target: Target, images: Mapping[str, str], values: Sequence[Path], settings: Mapping[str, str]
) -> list[Action]:
    """What :func:`dapr` and :func:`daca` run on a new cluster, and the test that the chart brings along."""

    def helm(state: str, *arguments: str | Path) -> Action:
        return Action(state, ("helm", *arguments, *(["--kube-context", target.context] if target.context else [])))

    namespace = target.namespace
    dapr = _upgrade_arguments(DAPR_RELEASE, DAPR_NAMESPACE, _dapr_arguments(target))
    daca = _upgrade_arguments(RELEASE, namespace, _daca_arguments(target, images, values, settings))
    return [
        helm("Dapr runs", *dapr),
        helm("the chat and its memory run", *daca, "--create-namespace"),
        helm("a conversation has been held", "test", RELEASE, "--namespace", namespace, "--logs"),
    ]


def model(kube: Kube) -> str:
    """The provider that answers in the installed release."""
    namespace = kube.target.namespace
    values = json.loads(
        kube.target.helm("get", "values", RELEASE, "--all", "--namespace", namespace, "--output", "json")
    )
    return str(values["model"]["provider"])


def _dapr_arguments(target: Target) -> list[str | Path]:
    values: list[str | Path] = ["--values", ROOT / "charts" / "dapr" / "values.yaml"]
    if target.cluster == "bare":
        chart: list[str | Path] = [binaries.dapr_chart()]
        values += ["--values", ROOT / "cluster" / "values-bare-dapr.yaml"]
    else:
        chart = ["dapr", "--repo", DAPR_REPOSITORY, "--version", VERSIONS["DAPR_VERSION"]]
    return [*chart, "--create-namespace", *values]


def _daca_arguments(
    target: Target, images: Mapping[str, str], values: Sequence[Path], settings: Mapping[str, str]
) -> list[str | Path]:
    arguments: list[str | Path] = [CHART]
    for path in [*CLUSTER_VALUES.get(target.cluster, []), *values]:
        arguments += ["--values", path]
    for service, reference in images.items():
        repository, _, tag = reference.rpartition(":")
        image = f"{VALUE_OF[service]}.image"
        arguments += ["--set-string", f"{image}.repository={repository}", "--set-string", f"{image}.tag={tag}"]
    for name, value in settings.items():
        arguments += ["--set-string", f"{name}={value}"]
    return arguments


def _upgrade_arguments(release: str, namespace: str, arguments: Sequence[str | Path]) -> list[str | Path]:
    timeout = f"{HELM_TIMEOUT_SECONDS}s"
    return ["upgrade", "--install", release, *arguments, "--namespace", namespace, "--wait", "--timeout", timeout]


def _upgrade(kube: Kube, release: str, namespace: str, arguments: Sequence[str | Path]) -> None:
    status = _release_status(kube, release, namespace)
    if status == "pending-install":  # an `up` that was interrupted; nothing ran before it
        kube.target.helm("uninstall", release, "--namespace", namespace)
    elif status.startswith("pending-"):
        kube.target.helm("rollback", release, "--namespace", namespace)
    # Helm 4 leaves what somebody has changed by hand (`kubectl scale`) and stops, unless it is told to take it back.
    version = kube.target.helm("version", "--template", "{{.Version}}")
    force = [] if version.startswith("v3.") else ["--server-side=true", "--force-conflicts"]
    kube.target.helm(*_upgrade_arguments(release, namespace, arguments), *force)


def _release_status(kube: Kube, release: str, namespace: str) -> str:
    """Helm's word for a release's state; empty where there is no such release."""
    try:
        told = json.loads(kube.target.helm("status", release, "--namespace", namespace, "--output", "json"))
    except CommandError as error:
        if "not found" in str(error):
            return ""
        raise
    return str(told["info"]["status"])


@contextmanager
def _explained(kube: Kube, namespace: str) -> Iterator[None]:
    """When the block fails and pods are at fault: shows what they say, and keeps the rest in a folder."""
    try:
        yield
    except CommandError as error:
        pods = evidence.at_fault(kube, namespace)
        if not pods:  # a wrong value, say
            raise
        for line in itertools.chain.from_iterable(evidence.explained(kube, pod) for pod in pods):
            say(line)
        names = ", ".join(pod.metadata.name for pod in pods)
        raise CommandError(
            f"pods of namespace {namespace} do not come up: {names} (above is what they say, and in "
            f"{evidence.collect(kube, 'up')} the rest); Helm says: {error}"
        ) from error
