"""A pod, as Kubernetes' API gives it."""

from itertools import pairwise
from typing import Any, Final, NamedTuple, Self

SIDECAR: Final = "daprd"
"""Name of the container that Dapr's injector adds."""

PUBLIC_PORT: Final = "--dapr-public-port"
METRICS_PORT: Final = "--metrics-port"
INTERNAL_PORT: Final = "--dapr-internal-grpc-port"
"""On which other sidecars call the actors of this one: with the pod's address it is the host's name in placement."""

_DEFAULTS: Final = {PUBLIC_PORT: 3501, METRICS_PORT: 9090, INTERNAL_PORT: 50002}


class Pod(NamedTuple):
    """What of a pod is looked at."""

    name: str
    node: str
    """Empty until it is scheduled."""
    ip: str
    """Empty until its containers are made."""
    ready: bool
    """It takes requests: not while it is being deleted."""
    leaving: bool
    restarts: int
    images: dict[str, str]
    """Container -> image; with those that start before the others, as a sidecar may."""
    arguments: dict[str, tuple[str, ...]]
    """Container -> its command and arguments."""
    cpu_limits: dict[str, float]
    """Container -> cores, of those that have a limit."""

    @classmethod
    def of(cls, told: dict[str, Any]) -> Self:
        """Reads the API's JSON, in which a field that is empty may be missing."""
        metadata, spec, status = told["metadata"], told["spec"], told["status"]
        containers = [*spec["containers"], *spec.get("initContainers", [])]
        leaving = "deletionTimestamp" in metadata
        conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
        return cls(
            name=metadata["name"],
            node=spec.get("nodeName", ""),
            ip=status.get("podIP", ""),
            ready=conditions.get("Ready") == "True" and not leaving,
            leaving=leaving,
            restarts=sum(container["restartCount"] for container in status.get("containerStatuses", [])),
            images={container["name"]: container["image"] for container in containers},
            arguments={
                container["name"]: (*container.get("command", []), *container.get("args", []))
                for container in containers
            },
            cpu_limits={
                container["name"]: _cores(str(limit))
                for container in containers
                if (limit := container.get("resources", {}).get("limits", {}).get("cpu")) is not None
            },
        )

    def port(self, argument: str) -> int:
        """A port of the sidecar: :data:`PUBLIC_PORT`, :data:`METRICS_PORT` or :data:`INTERNAL_PORT`."""
        return int(self.sidecar(argument) or _DEFAULTS[argument])

    def sidecar(self, argument: str) -> str:
        """The value of an argument of the sidecar; empty where it has none."""
        given = self.arguments.get(SIDECAR, ())
        return next((value for name, value in pairwise(given) if name == argument), "")


def _cores(quantity: str) -> float:
    """A quantity of Kubernetes: ``500m`` or ``0.5``."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)
