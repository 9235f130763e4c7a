"""What a scenario does to the cluster: scales, restarts, deletes pods, and puts back what would not come back."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import kubernetes
import urllib3
from kubernetes.client import ApiException

from actor_load.errors import LoadError
from actor_load.options import Options
from actor_load.placement.kube import api_client, reason

RESTARTED_AT: Final = "kubectl.kubernetes.io/restartedAt"
"""What `kubectl rollout restart` sets, too."""

MODEL_PORT: Final = 8002
"""Of the offline model."""


class HostDeployment:
    """The Deployment whose pods host the actors. What is changed is put back by :meth:`restore`."""

    def __init__(self, options: Options) -> None:
        """Raises :class:`LoadError` where it is not to be had."""
        self._apps: Any = kubernetes.client.AppsV1Api(api_client(options.kube_context))
        self._name, self._namespace = options.deployment, options.namespace
        found = self._read()
        self._replicas: int = found.spec.replicas
        self._container = ""
        self._variables: dict[str, str | None] = {}
        """What variables were before they were changed; ``None``: not set."""

    def scale(self, replicas: int) -> None:
        """Asks for another number of pods; returns at once."""
        body = {"spec": {"replicas": replicas}}
        self._asked("patch", "deployments/scale", self._apps.patch_namespaced_deployment_scale, body)

    def restart(self) -> None:
        """What `kubectl rollout restart` does; returns at once."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._patch_template({"metadata": {"annotations": {RESTARTED_AT: now}}})

    def set_environment(self, variables: Mapping[str, str]) -> bool:
        """Sets variables of the Deployment's first container; False where it has those values already.

        Changed pods are rolled out; returns at once.
        """
        container = self._read().spec.template.spec.containers[0]
        now = {variable.name: variable.value for variable in container.env or []}
        if all(now.get(name) == value for name, value in variables.items()):
            return False
        self._variables = {name: now.get(name) for name in variables} | self._variables
        self._patch_variables(container.name, variables)
        self._container = container.name
        return True

    def restore(self) -> None:
        """Puts back what was changed; returns at once."""
        if self._variables:
            self._patch_variables(self._container, self._variables)
            self._variables = {}
        if self._read().spec.replicas != self._replicas:
            self.scale(self._replicas)

    def _read(self) -> Any:
        return self._asked("get", "deployments", self._apps.read_namespaced_deployment)

    def _patch_variables(self, container: str, variables: Mapping[str, str | None]) -> None:
        changed = [
            {"name": name, "$patch": "delete"} if value is None else {"name": name, "value": value}
            for name, value in variables.items()
        ]
        self._patch_template({"spec": {"containers": [{"name": container, "env": changed}]}})

    def _patch_template(self, template: dict[str, Any]) -> None:
        body = {"spec": {"template": template}}
        self._asked("patch", "deployments", self._apps.patch_namespaced_deployment, body)

    def _asked(self, verb: str, resource: str, call: Any, *arguments: Any) -> Any:
        missing = (
            f"there is no Deployment {self._name} in namespace {self._namespace}: --deployment and --namespace "
            "name what is under load"
        )
        with _told(verb, resource, self._namespace, missing):
            return call(self._name, self._namespace, *arguments, _request_timeout=10)


class Container(NamedTuple):
    """One of a pod, as it runs now."""

    node: str
    id: str
    """Hex digits, as the node's runtime knows it. One that is started again has another."""


class PodGroup:
    """The pods of one part of the system, of which a fault takes some away."""

    def __init__(self, options: Options, namespace: str, selector: str) -> None:
        """``selector``: labels, as `kubectl -l` takes them."""
        self._core: Any = kubernetes.client.CoreV1Api(api_client(options.kube_context))
        self.namespace, self.selector = namespace, selector

    def ready(self) -> dict[str, str]:
        """Uid -> name of the pods that are ready and not on their way out, by name."""
        return {pod.metadata.uid: pod.metadata.name for pod in self._ready()}

    def addresses(self) -> list[str]:
        """The IPs of those pods."""
        return [pod.status.pod_ip for pod in self._ready()]

    def container(self, pod: str, container: str = "") -> Container | None:
        """A container of one of those pods, by name, the first without it; ``None`` where it does not run now."""
        for found in self._ready():
            if found.metadata.name == pod:
                statuses = [*(found.status.container_statuses or []), *(found.status.init_container_statuses or [])]
                named = [one for one in statuses if one.name == container or not container]
                if not named:
                    names = ", ".join(one.name for one in statuses)
                    raise LoadError(f"pod {pod} has no container {container}, but {names}")
                _, _, container_id = (named[0].container_id or "").rpartition("/")
                return Container(found.spec.node_name, container_id) if named[0].state.running else None
        return None

    def delete(self, name: str, grace_seconds: int | None) -> None:
        """Deletes a pod; returns at once. ``grace_seconds``: until its containers are killed; ``None``: its own."""
        how = {} if grace_seconds is None else {"grace_period_seconds": grace_seconds}
        self._asked("delete", self._core.delete_namespaced_pod, name, **how)

    def _ready(self) -> list[Any]:
        found = self._asked("list", self._core.list_namespaced_pod, label_selector=self.selector).items
        pods = [pod for pod in found if not pod.metadata.deletion_timestamp and _is_ready(pod)]
        return sorted(pods, key=lambda pod: pod.metadata.name)

    def _asked(self, verb: str, call: Any, *arguments: Any, **options: Any) -> Any:
        with _told(verb, "pods", self.namespace):
            return call(*arguments, namespace=self.namespace, _request_timeout=10, **options)


class NodeJob:
    """A Job on a node of the victim's: :mod:`actor_load.node_faults`, in a pod that has rights on the node.

    It is made from a suspended CronJob, as `kubectl create job --from=cronjob/...` does: what the pod is, and whether
    there may be one, stands in charts/load-tests.
    """

    def __init__(self, options: Options, node: str, arguments: list[str]) -> None:
        """Makes it; it runs on ``node`` at once, and ends by itself."""
        client = api_client(options.kube_context)
        self._batch: Any = kubernetes.client.BatchV1Api(client)
        self._core: Any = kubernetes.client.CoreV1Api(client)
        self._namespace = options.namespace
        missing = (
            f"there is no CronJob {options.node_faults} in namespace {self._namespace}: charts/load-tests has it with "
            "nodeFaults.enabled=true"
        )
        with _told("get", "cronjobs", self._namespace, missing):
            read = self._batch.read_namespaced_cron_job
            found = read(options.node_faults, self._namespace, _request_timeout=10).spec.job_template
        found.spec.template.spec.node_name = node
        found.spec.template.spec.containers[0].args = arguments
        metadata = {"generateName": f"{options.node_faults}-", "labels": found.metadata.labels}
        body = {"metadata": metadata, "spec": found.spec}
        with _told("create", "jobs", self._namespace):
            made = self._batch.create_namespaced_job(self._namespace, body, _request_timeout=10)
        self._name: str = made.metadata.name

    def is_done(self) -> bool:
        """Whether it has done what it was told.

        Raises:
            LoadError: it could not, and why.
        """
        with _told("get", "jobs", self._namespace):
            status = self._batch.read_namespaced_job(self._name, self._namespace, _request_timeout=10).status
        if status.failed:
            raise LoadError(f"job {self._name} failed: {self._said()}")
        return bool(status.succeeded)

    def _said(self) -> str:
        with _told("list", "pods", self._namespace):
            selector = f"batch.kubernetes.io/job-name={self._name}"
            pods = self._core.list_namespaced_pod(self._namespace, label_selector=selector, _request_timeout=10).items
        ends = [one.state.terminated for pod in pods for one in pod.status.container_statuses or []]
        return "; ".join(end.message or end.reason for end in ends if end) or "its pod did not start"


def disturb(address: str, kind: str, seconds: int) -> None:
    """Lets the offline model at an IP fail in a way of its ``POST /faults``; it ends by itself.

    Raises:
        LoadError: it does not answer, or refuses.
    """
    url = f"http://{address}:{MODEL_PORT}/faults"
    try:
        with urllib3.PoolManager(retries=False, timeout=10.0) as pool:
            answer = pool.request("POST", url, json={"kind": kind, "seconds": seconds})
    except urllib3.exceptions.HTTPError as error:
        raise LoadError(f"the offline model does not answer at {url}: {reason(error)}") from error
    if answer.status != 200:
        raise LoadError(f"the offline model answered {answer.status} at {url}: {answer.data.decode(errors='replace')}")


def _is_ready(pod: Any) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or [])


@contextmanager
def _told(verb: str, resource: str, namespace: str, missing: str = "") -> Iterator[None]:
    """An error of the API as a :class:`LoadError` of one line; ``missing`` is what a 404 means, where it is known."""
    try:
        yield
    except ApiException as error:
        if error.status == 404 and missing:
            raise LoadError(missing) from error
        if error.status == 403:
            raise LoadError(
                f"not allowed to {verb} {resource} in namespace {namespace}, which scenarios need: "
                "charts/load-tests has the Role, or take a user with the ClusterRole edit"
            ) from error
        raise LoadError(f"the cluster's API answered {error.status} {error.reason} to {verb} {resource}") from error
    except urllib3.exceptions.HTTPError as error:
        raise LoadError(f"the cluster's API does not answer to {verb} {resource}: {reason(error)}") from error
