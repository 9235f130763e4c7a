"""What a cluster tells about a failure: on the screen the pod at fault, in a folder everything."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from kubernetes.client import ApiException

from cluster.dapr import control_plane
from cluster.errors import CommandError
from cluster.kube import Kube, Pod, is_ready
from cluster.versions import ROOT

FOLDER: Final = ROOT / ".evidence"
SHOWN_LINES: Final = 20


def faults(kube: Kube, namespace: str) -> Iterator[str]:
    """Of each pod that does not come up: its state, its last events, and the log's end of what is not ready in it."""
    for pod in kube.pods(namespace):
        if is_ready(pod) or pod.status.phase == "Succeeded":
            continue
        yield f"--- pod {namespace}/{pod.metadata.name}: {pod.status.phase}"
        yield from _events(kube, namespace, pod.metadata.name)[-SHOWN_LINES:]
        for container in _containers(pod):
            if not container.ready:
                state = _state(container)
                yield f"--- log of its container {container.name} ({state})"
                crashed = container.restart_count > 0 and not state.startswith("running")
                yield from _log(kube, pod, container.name, previous=crashed).splitlines()[-SHOWN_LINES:]


def collect(kube: Kube, why: str) -> Path:
    """Writes events, descriptions and the logs of all containers, Dapr's too, to a folder of its own; its path."""
    folder = FOLDER / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{why}"
    plane = control_plane(kube)
    kubectl, helm = kube.target.kubectl, kube.target.helm
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nodes.txt").write_text(_told(kubectl, "describe", "nodes"))
    (folder / "releases.txt").write_text(_told(helm, "list", "--all-namespaces"))
    for namespace in {kube.target.namespace, *([plane.namespace] if plane else [])}:
        into = folder / namespace
        into.mkdir()
        (into / "objects.txt").write_text(_told(kubectl, "get", "all,pvc", "-n", namespace, "-o", "wide"))
        (into / "pods.txt").write_text(_told(kubectl, "describe", "pods", "-n", namespace))
        (into / "events.txt").write_text("\n".join(_events(kube, namespace)) + "\n")
        for pod in kube.pods(namespace):
            for container in _containers(pod):
                name = f"{pod.metadata.name}.{container.name}"
                (into / f"{name}.log").write_text(_log(kube, pod, container.name))
                if container.restart_count:
                    (into / f"{name}.previous.log").write_text(_log(kube, pod, container.name, previous=True))
    return folder


def _events(kube: Kube, namespace: str, pod: str | None = None) -> list[str]:
    selector = f"involvedObject.kind=Pod,involvedObject.name={pod}" if pod else ""
    events = kube.core.list_namespaced_event(namespace, field_selector=selector).items
    # A repeated event keeps its first time; one that was written by the newer API has only event_time.
    events.sort(key=lambda event: event.last_timestamp or event.event_time or event.metadata.creation_timestamp)
    return [f"{event.type} {event.involved_object.name} {event.reason}: {event.message}" for event in events]


def _containers(pod: Pod) -> list[Any]:
    return [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]


def _state(container: Any) -> str:
    state = container.state
    if state.waiting:
        return f"waiting: {state.waiting.reason}"
    if state.terminated:
        return f"ended with {state.terminated.exit_code}: {state.terminated.reason}"
    return "running, not ready"


def _log(kube: Kube, pod: Pod, container: str, *, previous: bool = False) -> str:
    try:
        # The client decodes a log as if it were JSON, which mangles one that is: hence the raw answer.
        answer = kube.core.read_namespaced_pod_log(
            pod.metadata.name,
            pod.metadata.namespace,
            container=container,
            previous=previous,
            _preload_content=False,
        )
    except ApiException as error:
        return f"(no log: {error.reason})\n"
    return str(answer.data.decode("utf-8", "replace"))


def _told(tool: Callable[..., str], *arguments: str) -> str:
    try:
        return tool(*arguments)
    except CommandError as error:
        return f"{error}\n"
