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


def at_fault(kube: Kube, namespace: str) -> list[Pod]:
    """The pods that do not come up; one that has done its work, or is going, is not among them."""
    return [
        pod
        for pod in kube.pods(namespace)
        if not is_ready(pod) and pod.status.phase != "Succeeded" and pod.metadata.deletion_timestamp is None
    ]


def explained(kube: Kube, pod: Pod) -> Iterator[str]:
    """What there is to say of a pod at fault: its state, its last events, the log's end of what is not ready in it."""
    yield f"--- pod {pod.metadata.name}: {pod.status.phase}"
    yield from _events(kube, pod.metadata.namespace, pod.metadata.name)[-SHOWN_LINES:]
    for container in _containers(pod):
        if not container.ready:
            yield f"--- log of its container {container.name} ({_state(container)})"
            crashed = container.restart_count > 0 and container.state.running is None
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
    state, ended = container.state, container.state.terminated or container.last_state.terminated
    end = f"ended with {ended.exit_code}: {ended.reason}" if ended else ""
    if state.waiting:
        return f"waiting: {state.waiting.reason}" + (f"; {end}" if end else "")
    return end if state.terminated else "running, not ready"


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
