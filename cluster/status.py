"""`make status`: what runs, and where it answers."""

from typing import Final

from rich.console import Console

from cluster import bare, placement, screen
from cluster.client import CHAT, MEMORY
from cluster.dapr import control_plane
from cluster.errors import CommandError
from cluster.forward import Reach
from cluster.kube import Kube, Pod, api_errors, is_ready
from cluster.target import recorded

BY_FORWARD: Final = "by `make chat`, or kubectl port-forward"


def status(requested: str, namespace: str) -> None:
    """Prints the node's components, Dapr, the pods, the addresses of the services and the placement table.

    Raises:
        CommandError: something is not as it should be.
    """
    target = recorded(requested, namespace)
    console = screen.console()
    console.print(f"cluster: {target.cluster}, {target.context or target.kubeconfig}, namespace {target.namespace}")
    if target.cluster == "bare":
        _bare_node(console)
    kube = Kube(target)
    with api_errors():
        plane = control_plane(kube)
        if plane is None:
            raise CommandError("there is no Dapr in this cluster: `make up` installs it")
        console.print(f"Dapr {plane.version} in namespace {plane.namespace}")
        failing = _pods(kube, console, [plane.namespace, target.namespace])
        if failing:
            raise CommandError(f"not ready: {', '.join(failing)}; `make up` mends what it can")
        with Reach(kube) as reach:
            for service in (CHAT, MEMORY):
                address = reach.url(service) if target.cluster in {"bare", "kind"} else BY_FORWARD
                console.print(f"{service}: {address}")
        console.print(placement.table(placement.rows(kube)))


def _bare_node(console: Console) -> None:
    components = bare.status()
    shown = screen.table("Bare node", "component", "state")
    for component in components:
        shown.add_row(component.name, component.detail)
    console.print(shown)
    if down := [component.name for component in components if not component.running]:
        raise CommandError(f"down: {', '.join(down)}; `make up` mends the node")


def _pods(kube: Kube, console: Console, namespaces: list[str]) -> list[str]:
    shown = screen.table("Pods", "namespace", "pod", "state", "restarts")
    failing = []
    for namespace in namespaces:
        for pod in kube.pods(namespace):
            state = "ready" if is_ready(pod) else _waiting(pod)
            restarts = sum(item.restart_count for item in pod.status.container_statuses or [])
            shown.add_row(namespace, pod.metadata.name, state, str(restarts))
            if not (is_ready(pod) or pod.status.phase == "Succeeded"):
                failing.append(f"{namespace}/{pod.metadata.name}")
    console.print(shown)
    return failing


def _waiting(pod: Pod) -> str:
    """The phase of a pod that is not ready, and what it waits for, as far as Kubernetes says."""
    told = [condition.message for condition in pod.status.conditions or [] if condition.status != "True"]
    reasons = list(dict.fromkeys(message for message in told if message))
    return ": ".join([str(pod.status.phase), *reasons[:1]])
