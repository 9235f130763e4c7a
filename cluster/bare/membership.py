"""What Kubernetes is told, and asked, about the nodes that are its members."""

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cluster import binaries
from cluster.bare import pki
from cluster.bare.layout import Node
from cluster.errors import CommandError
from cluster.logs import show_end
from cluster.shell import run

READY_SECONDS: Final = 60.0
NOTICED_SECONDS: Final = 60.0
DRAIN_SECONDS: Final = 300
POLL_SECONDS: Final = 0.3


def kubectl(*arguments: str | Path) -> str:
    """Runs kubectl as the cluster's administrator; its output."""
    return run([binaries.kubectl(), "--kubeconfig", pki.kubeconfig("admin"), *arguments])


def wait_until_ready(nodes: Iterable[Node], born: Mapping[Node, datetime]) -> None:
    """Waits until Kubernetes knows every node as ready.

    ``born`` says since when those live that were started anew: what Kubernetes knows from before does not count.

    Raises:
        CommandError: one is not, after a minute. The end of its kubelet's log has been shown.
    """
    end = time.monotonic() + READY_SECONDS
    while unready := _unready(nodes, _listed("nodes"), born):
        if time.monotonic() > end:
            for node in unready:
                show_end(node.state / "log" / "kubelet.log")
            raise CommandError("; ".join(f"{node.name} is not Ready: {why}" for node, why in unready.items()))
        time.sleep(POLL_SECONDS)


def wait_until_noticed(born: Mapping[Node, datetime]) -> None:
    """Waits until no container that ended with an earlier life of these nodes counts as running.

    Until then their pods count as ready, and whoever waits for them is told that all is well.

    Raises:
        CommandError: some still do after a minute.
    """
    end = time.monotonic() + NOTICED_SECONDS
    while outdated := [name for node, since in born.items() for name in _outdated(_pods(node), since)]:
        if time.monotonic() > end:
            raise CommandError(f"Kubernetes still takes containers for running that have ended: {', '.join(outdated)}")
        time.sleep(POLL_SECONDS)


def drain(node: Node) -> None:
    """Has the node's pods move to the others, as disruption budgets allow.

    Raises:
        CommandError: some did not within five minutes; the node then takes pods again.
    """
    patience = [f"--timeout={DRAIN_SECONDS}s", "--ignore-daemonsets", "--delete-emptydir-data"]
    try:
        kubectl("drain", node.name, *patience)
    except CommandError as error:
        with suppress(CommandError):
            kubectl("uncordon", node.name)
        raise CommandError(f"the pods of {node.name} do not move, so it stays: {error}", said=error.said) from error


def forget(node: Node) -> None:
    """Removes a node that does not run any more from the members."""
    kubectl("delete", "node", node.name, "--ignore-not-found")


def _listed(*what: str) -> list[Any]:
    return list(json.loads(kubectl("get", *what, "--output=json"))["items"])


def _pods(node: Node) -> list[Any]:
    return _listed("pods", "--all-namespaces", f"--field-selector=spec.nodeName={node.name}")


def _unready(nodes: Iterable[Node], listed: list[Any], born: Mapping[Node, datetime]) -> dict[Node, str]:
    """Those that are not ready, and why."""
    conditions = {item["metadata"]["name"]: item["status"].get("conditions", []) for item in listed}
    unready = {}
    for node in nodes:
        ready = next((item for item in conditions.get(node.name, []) if item["type"] == "Ready"), None)
        if ready is None or (node in born and _time(ready["lastHeartbeatTime"]) < _second(born[node])):
            unready[node] = "its kubelet has not reported"
        elif ready["status"] != "True":
            unready[node] = ready["message"]
    return unready


def _outdated(pods: list[Any], since: datetime) -> list[str]:
    """The pods with a container that is said to run since before ``since``."""
    outdated = []
    for pod in pods:
        status = pod["status"]
        containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
        started = [item["state"]["running"]["startedAt"] for item in containers if "running" in item["state"]]
        if any(_time(stamp) < _second(since) for stamp in started):
            outdated.append(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
    return outdated


def _time(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)


def _second(moment: datetime) -> datetime:
    """As exact as Kubernetes is."""
    return moment.astimezone(UTC).replace(microsecond=0)
