"""The Dapr control plane of the cluster, and the sidecars of our pods."""

import base64
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote

from kubernetes.client import ApiException

from cluster import rest
from cluster.errors import CommandError
from cluster.forward import Forward
from cluster.kube import Kube, Pod

SIDECAR: Final = "daprd"
SIDECAR_PORT: Final = 3500
INJECTED: Final = "dapr.io/sidecar-injected=true"


class ControlPlane(NamedTuple):
    """Where Dapr runs and what it says it is."""

    namespace: str
    version: str


def control_plane(kube: Kube) -> ControlPlane | None:
    """The Dapr of this cluster, whoever installed it; ``None`` where there is none."""
    found = kube.apps.list_deployment_for_all_namespaces(label_selector="app=dapr-sidecar-injector").items
    if not found:
        return None
    image = str(found[0].spec.template.spec.containers[0].image)
    return ControlPlane(str(found[0].metadata.namespace), image.rpartition(":")[2])


def definitions(kube: Kube) -> list[str]:
    """The names of Dapr's custom resource definitions in this cluster."""
    found = kube.extensions.list_custom_resource_definition().items
    return [item.metadata.name for item in found if item.spec.group == "dapr.io"]


class Sidecar:
    """The HTTP API of one pod's sidecar: ``with Sidecar(kube, pod) as sidecar: sidecar.call(...)``."""

    def __init__(self, kube: Kube, pod: Pod) -> None:
        self.pod = str(pod.metadata.name)
        token = _api_token(kube, pod)
        self._headers = {"dapr-api-token": token} if token else {}
        self._forward = Forward(kube, str(pod.metadata.namespace), f"pod/{self.pod}", SIDECAR_PORT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the port-forward to it."""
        self._forward.close()

    def call(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> rest.Answer:
        """One request with a JSON body; ``path`` starts with ``/v1.0``.

        Raises:
            CommandError: the sidecar does not answer.
        """
        try:
            return rest.call(
                method, self._forward.url + path, body, headers={**self._headers, "Content-Type": content_type}
            )
        except rest.Unreachable as error:
            raise CommandError(f"the sidecar of {self.pod} does not answer: {error}") from error

    def metadata(self) -> Any:
        """What the sidecar says of itself."""
        return self.call("GET", "/v1.0/metadata").json()

    def actor(self, actor_id: str, method: str, arguments: object = None) -> rest.Answer:
        """Calls a method of a user's session actor, wherever it lives."""
        return self.call(
            "POST", f"/v1.0/actors/UserSessionActor/{quote(actor_id, safe='')}/method/{method}", arguments or {}
        )


def _api_token(kube: Kube, pod: Pod) -> str | None:
    name = (pod.metadata.annotations or {}).get("dapr.io/api-token-secret")
    if not name:
        return None
    try:
        secret = kube.core.read_namespaced_secret(name, pod.metadata.namespace)
    except ApiException as error:
        raise CommandError(
            f"the sidecar of {pod.metadata.name} wants the token of secret {name}: {error.reason}"
        ) from error
    return base64.b64decode(secret.data["token"]).decode()
