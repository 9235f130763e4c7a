"""Which pods host actors: what Dapr's placement service says, joined with what each sidecar says of itself.

Placement knows the hosts and the actor types they offer, not what is active on them. A sidecar knows how many actors of
each type are active on it. Nothing maps an actor id to its host: `make inspect` asks the actor.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from kubernetes.client import ApiException
from rich.table import Table

from cluster import screen
from cluster.dapr import INJECTED, Sidecar, control_plane
from cluster.errors import CommandError
from cluster.kube import Kube, Pod

PLACEMENT_PORT = 8080


class Row(NamedTuple):
    """One actor type on one host."""

    pod: str
    """The pod's name; empty where placement names an address that no pod of the namespace has."""
    address: str
    actor_type: str
    active: int | None
    """Actors that are active there now; ``None`` where the sidecar did not say."""


def hosts(kube: Kube) -> list[dict[str, Any]]:
    """The hosts of the target's namespace as placement knows them: ``[{name: "ip:port", id, entities}]``.

    Raises:
        CommandError: no replica of placement has a table.
    """
    plane = control_plane(kube)
    if plane is None:
        raise CommandError("there is no Dapr in this cluster: `make up` installs it")
    said = "it has no pod; where Dapr's scheduler places (1.19), `python -m actor_load.placement` tells the hosts"
    for pod in kube.pods(plane.namespace, "app=dapr-placement-server"):
        try:
            state = kube.proxied(plane.namespace, pod.metadata.name, PLACEMENT_PORT, "placement/state")
        except ApiException as error:
            said = f"{pod.metadata.name} answered {error.status}"
            if error.status == 404:
                said += " (dapr_placement.metadataEnabled is off in Dapr's values)"
            continue
        if state is not None:  # only the leader has a table; the others answer null
            table = (state.get("tables") or {}).get(kube.target.namespace) or {}
            return list(table.get("hosts") or [])
        said = "no replica is the leader"
    raise CommandError(f"placement does not tell its table: {said}")


def rows(kube: Kube) -> list[Row]:
    """The placement table, by pod."""
    pods = {pod.status.pod_ip: pod for pod in kube.pods(kube.target.namespace, INJECTED)}
    found = []
    for host in hosts(kube):
        pod = pods.get(str(host["name"]).rpartition(":")[0])
        active = _active(kube, pod) if pod else {}
        found += [
            Row(
                pod=str(pod.metadata.name) if pod else "",
                address=str(host["name"]),
                actor_type=actor_type,
                active=active.get(actor_type, 0) if active is not None and pod else None,
            )
            for actor_type in host.get("entities") or []
        ]
    return sorted(found)


def table(found: Iterable[Row]) -> Table:
    """The rows for a terminal."""
    shown = screen.table("Placement", "pod", "address", "actor type", "active")
    for row in found:
        active = "?" if row.active is None else str(row.active)
        shown.add_row(row.pod or "(no pod)", row.address, row.actor_type, active)
    return shown


def _active(kube: Kube, pod: Pod) -> dict[str, int] | None:
    try:
        with Sidecar(kube, pod) as sidecar:
            runtime = sidecar.metadata().get("actorRuntime") or {}
    except CommandError:  # the pod may be on its way out; the table says so
        return None
    return {item["type"]: int(item.get("count", 0)) for item in runtime.get("activeActors") or []}
