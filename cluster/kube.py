"""What the commands ask the cluster's API server."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import kubernetes
import urllib3
from kubernetes.client import ApiException

from cluster.errors import CommandError
from cluster.target import Target

MADE_BY_UP: Final = "daca/made-by-up"
"""Annotation of the namespace: what `up` made and `down` may remove, as words."""

# The client's types make every field optional, also those that every object of a cluster has.
Pod: TypeAlias = Any
Namespace: TypeAlias = Any


class Kube:
    """The API of one target's cluster. Calls raise :class:`CommandError` through :func:`api_errors`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        try:
            self.client = kubernetes.config.new_client_from_config(  # type: ignore[no-untyped-call]
                target.kubeconfig, target.context or None
            )
        except kubernetes.config.ConfigException as error:
            raise CommandError(f"{target.kubeconfig} is no kubeconfig of a running cluster: `make up` first") from error
        # One try and no long waits: a command that cannot reach the cluster says so at once.
        self.client.configuration.retries = False
        self.core: Any = kubernetes.client.CoreV1Api(self.client)
        self.apps: Any = kubernetes.client.AppsV1Api(self.client)
        self.extensions: Any = kubernetes.client.ApiextensionsV1Api(self.client)

    def impersonating(self, user: str) -> Any:
        """The core API, as another user sees it."""
        client: Any = kubernetes.client.ApiClient(self.client.configuration)
        client.set_default_header("Impersonate-User", user)
        return kubernetes.client.CoreV1Api(client)

    def pods(self, namespace: str, selector: str = "") -> list[Pod]:
        """The pods of a namespace, by name."""
        found = self.core.list_namespaced_pod(namespace, label_selector=selector).items
        return sorted(found, key=lambda pod: pod.metadata.name)

    def ready_pods(self, namespace: str, selector: str = "") -> list[Pod]:
        """Those that take requests: ready, and not on their way out."""
        return [pod for pod in self.pods(namespace, selector) if is_ready(pod)]

    def namespace(self, name: str) -> Namespace | None:
        """A namespace, or ``None`` where there is none of that name."""
        try:
            return self.core.read_namespace(name)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def made_by_up(self, namespace: str) -> set[str]:
        """What `up` made for ``namespace``, in words of its own; empty where it made nothing."""
        found = self.namespace(namespace)
        return set((found.metadata.annotations or {}).get(MADE_BY_UP, "").split()) if found else set()

    def record_made(self, namespace: str, what: str) -> None:
        """Adds ``what`` to :meth:`made_by_up`. Called before it is made, so that `down` finds what broke half-way."""
        words = " ".join(sorted(self.made_by_up(namespace) | {what}))
        self.core.patch_namespace(namespace, {"metadata": {"annotations": {MADE_BY_UP: words}}})

    def proxied(self, namespace: str, pod: str, port: int, path: str) -> Any:
        """GET of JSON from a pod that listens on its address, through the API server."""
        # The client would read JSON and give back Python's notation of it, hence the raw answer.
        answer = self.core.connect_get_namespaced_pod_proxy_with_path(
            f"{pod}:{port}", namespace, path, _preload_content=False, _request_timeout=10
        )
        return json.loads(answer.data)


@contextmanager
def api_errors() -> Iterator[None]:
    """Turns what the API client raises into one line."""
    try:
        yield
    except ApiException as error:
        raise CommandError(f"the cluster's API answered {error.status}: {message_of(error)}") from error
    except urllib3.exceptions.HTTPError as error:
        raise CommandError(
            f"the cluster's API does not answer ({type(error).__name__}): `make status` says more, `make up` mends it"
        ) from error


def wait_until(reached: Callable[[], bool], timeout_seconds: float, every_seconds: float = 0.5) -> bool:
    """Asks again and again until ``reached`` says yes; False when the time is over."""
    end = time.monotonic() + timeout_seconds
    while not reached():
        if time.monotonic() > end:
            return False
        time.sleep(every_seconds)
    return True


def is_ready(pod: Pod) -> bool:
    """Whether a pod takes requests."""
    conditions = pod.status.conditions or []
    return pod.metadata.deletion_timestamp is None and any(
        condition.type == "Ready" and condition.status == "True" for condition in conditions
    )


def message_of(error: ApiException) -> str:
    """What the API server says is wrong."""
    try:
        return str(json.loads(error.body or "{}")["message"])
    except (ValueError, KeyError):
        return str(error.reason)
