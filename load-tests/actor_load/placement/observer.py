"""The placement view: Dapr's placement table, each sidecar and its metrics, and the pods, joined into one sample.

All of it goes through Kubernetes' API server, so that it works from a pod and from any machine with a kubeconfig:
placement's ``/placement/state`` (port 8080), the sidecars' metadata (their public port, which wants no token) and their
metrics, and the kubelets' ``/metrics/resource``; of pods with a CPU limit also ``/metrics/cadvisor``, for what it cost.

Where Dapr's scheduler places (from 1.19 on) nobody tells a table. It is then made of what the sidecars say: one that is
connected is a host of the types that its app offers.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from actor_load.errors import LoadError
from actor_load.placement import told
from actor_load.placement.kube import CONNECTIONS, Kube, KubeError
from actor_load.placement.pods import INTERNAL_PORT, METRICS_PORT, PUBLIC_PORT, SIDECAR, Pod
from actor_load.record import Host, PlacementSample, PodSample

PLACEMENT: Final = "app=dapr-placement-server"
"""Label of placement's pods in Dapr's chart."""

SCHEDULER: Final = "app=dapr-scheduler-server"
"""Label of the scheduler's pods in Dapr's chart."""

SCHEDULER_PLACES: Final = "--placement-enabled=true"
"""What Dapr's chart starts the scheduler with, when it has ``global.scheduler.placement.enabled``."""

RENDEZVOUS_OF: Final = "1.19"
"""The release whose scheduler is known to place as :mod:`actor_load.placement.rendezvous` does."""

PLACEMENT_PORT: Final = 8080
ELECTION_SECONDS: Final = 15.0
"""How long :meth:`Observer.check` waits for a leader; an election takes 2 to 4 s."""

Got = TypeVar("Got")


class Watched(BaseModel):
    """What is watched. The load tests' options have the same fields: ``Watched.model_validate(options)``."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    namespace: str = Field("daca", description="Namespace of the release.")
    deployment: str = Field("chat-service", description="Deployment whose pods host the actors.")
    actor_type: str = Field("UserSessionActor", description="Actor type that hosts and ids are looked up for.")
    dapr_namespace: str = Field("dapr-system", description="Namespace of Dapr's control plane.")
    kube_context: str = Field("", description="Context of the kubeconfig; empty: the current one, or the pod's own.")
    placement_seconds: float = Field(2.0, ge=0.5, description="Seconds between two looks.")


class Observer:
    """Looks at one cluster. Every pod is asked at the same time: one that is gone delays nothing but itself."""

    def __init__(self, watched: Watched) -> None:
        """Reads the kubeconfig; asks nothing yet.

        Raises:
            LoadError: there is no cluster to talk to.
        """
        self.watched = watched
        self._kube = Kube(watched.kube_context)
        self._pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="observer")
        self._selector: str | None = None
        self._rates = told.Rates()
        self._kubelet_problems: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for what is still asked, and ends the connections."""
        self._pool.shutdown()
        self._kube.client.close()

    def observe(self) -> PlacementSample:
        """One look, of what is known at its start or within the 3 s an answer may take. It does not fail.

        What cannot be asked is missing in the sample and named among its ``problems``. Kubelets that do not tell CPU
        and memory are named once only: placement can be judged without them.
        """
        sample = PlacementSample(at=time.time())
        leading = self._pool.submit(_outcome, self._leading)
        pods = _outcome(self._pods)
        if isinstance(pods, LoadError):
            sample.problems.append(str(pods))
            pods = []
        nodes = sorted({pod.node for pod in pods} - {""})
        usages = [(node, self._pool.submit(_outcome, self._usage, node)) for node in nodes]
        # A page of hundreds of kilobytes: asked for only where a limit could have stopped anybody.
        limited = sorted({pod.node for pod in pods if pod.cpu_limits} - {""})
        periods = [self._pool.submit(_outcome, self._periods, node) for node in limited]
        asked = [
            (pod, self._pool.submit(_outcome, self._runtime, pod), self._pool.submit(_outcome, self._metrics, pod))
            for pod in pods
        ]
        for pod, runtime, metrics in asked:
            self._add_pod(sample, pod, runtime.result(), metrics.result())
        hosting = [host for (pod, _, _), found in zip(asked, sample.pods, strict=True) if (host := _host(pod, found))]
        for node, usage in usages:
            self._add_usage(sample, node, usage.result())
        self._add_limits(sample, pods, [future.result() for future in periods])
        found = leading.result()
        if isinstance(found, LoadError):
            sample.problems.append(str(found))
        elif found is None:
            sample.placer, sample.hosts = "scheduler", hosting
        else:
            sample.leader, table = found
            sample.version, sample.hosts = table.version, table.hosts
        sample.problems = list(dict.fromkeys(sample.problems))
        return sample

    def check(self) -> None:
        """Returns if all that a sample needs can be asked.

        Raises:
            LoadError: the API is out of reach, something is missing, or a permission is; CPU and memory may be missing.
        """
        watched = self.watched
        self._kube.version()
        self._check_deployment()
        pods = self._pods()
        for pod in pods:
            if SIDECAR not in pod.images:
                raise LoadError(
                    f"pod {pod.name} of Deployment {watched.deployment} has no Dapr sidecar, so it hosts no actors: "
                    "--deployment names another, or Dapr's injector was not there when the pod came"
                )
        if ready := [pod for pod in pods if pod.ready]:
            self._runtime(ready[0])
            self._metrics(ready[0])
        end = time.monotonic() + ELECTION_SECONDS
        while True:
            try:
                self._leading()
            except _NoLeader:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)
            else:
                return

    def versions(self) -> dict[str, str]:
        """Part -> version: of Kubernetes, Dapr's control plane, the sidecars, and the images of the pods.

        Raises:
            LoadError: the API is out of reach, or something is missing.
        """
        pods = self._pods()
        plane = [image for pod in self._placement_pods() or self._schedulers() for image in pod.images.values()]
        sidecars = [self._runtime(pod).version for pod in pods if pod.ready]
        images = {name: image for pod in pods for name, image in pod.images.items() if name != SIDECAR}
        return {
            "Kubernetes": self._kube.version(),
            "Dapr control plane": _joined(image.rpartition(":")[2] for image in plane),
            "Dapr sidecar": _joined(sidecars),
            **{f"image of {name}": image for name, image in sorted(images.items())},
        }

    def _check_deployment(self) -> None:
        watched = self.watched
        try:
            self._kube.deployment(watched.namespace, watched.deployment)
        except KubeError as error:
            if error.status != 404:
                raise
            try:
                self._kube.namespace(watched.namespace)
            except KubeError as unknown:
                if unknown.status == 404:
                    raise LoadError(f"there is no namespace {watched.namespace}: --namespace names another") from error
            raise LoadError(
                f"there is no Deployment {watched.deployment} in namespace {watched.namespace}: "
                "--deployment and --namespace name what is under load"
            ) from error

    def _pods(self) -> list[Pod]:
        watched = self.watched
        if self._selector is None:
            labels = self._kube.deployment(watched.namespace, watched.deployment)["spec"]["selector"]["matchLabels"]
            self._selector = ",".join(f"{name}={value}" for name, value in labels.items())
        return self._kube.pods(watched.namespace, self._selector)

    def _placement_pods(self) -> list[Pod]:
        return self._kube.pods(self.watched.dapr_namespace, PLACEMENT)

    def _schedulers(self) -> list[Pod]:
        """The schedulers, where they place.

        Raises:
            LoadError: they don't, or are of a release whose rule is not known.
        """
        namespace = self.watched.dapr_namespace
        pods = self._kube.pods(namespace, SCHEDULER)
        if not any(SCHEDULER_PLACES in given for pod in pods for given in pod.arguments.values()):
            raise LoadError(
                f"namespace {namespace} has no pod of Dapr's placement ({PLACEMENT}): --dapr-namespace names another"
            )
        versions = {image.rpartition(":")[2] for pod in pods for image in pod.images.values()}
        if unknown := sorted(version for version in versions if not version.startswith(f"{RENDEZVOUS_OF}.")):
            raise LoadError(
                f"Dapr {', '.join(unknown)} places actors by its scheduler, in a way that is known of "
                f"{RENDEZVOUS_OF} only: install Dapr with global.scheduler.placement.enabled=false"
            )
        return pods

    def _leading(self) -> tuple[str, told.Table] | None:
        """The pod of placement that leads, and its table; the others have none. ``None`` where the scheduler places."""
        placement = self._placement_pods()
        if not placement:
            self._schedulers()
            return None
        said = []
        for pod, future in [(pod, self._pool.submit(_outcome, self._replica, pod)) for pod in placement]:
            found = future.result()
            if isinstance(found, told.Table):
                return pod.name, found
            if isinstance(found, KubeError) and found.status in {403, 404}:
                raise found
            said += [str(found)] if found else []
        raise _NoLeader(f"placement has no leader: {'; '.join(said) or 'none of its pods says that it is one'}")

    def _replica(self, pod: Pod) -> told.Table | None:
        namespace = self.watched.dapr_namespace
        what = f"placement ({namespace}/{pod.name})"
        try:
            body = self._kube.from_pod(namespace, pod.name, PLACEMENT_PORT, "/placement/state")
        except KubeError as error:
            if error.status == 404:
                raise KubeError(
                    f"{what} does not tell its table: Dapr's chart does with dapr_placement.metadataEnabled=true",
                    404,
                ) from error
            raise _naming(what, error) from error
        return _read(lambda: told.table(body, self.watched.namespace), what)

    def _runtime(self, pod: Pod) -> told.Runtime:
        return self._sidecar(pod, PUBLIC_PORT, "/v1.0/metadata", told.runtime)

    def _metrics(self, pod: Pod) -> told.ActorMetrics:
        return self._sidecar(pod, METRICS_PORT, "/metrics", told.actor_metrics)

    def _sidecar(self, pod: Pod, port: str, path: str, read: Callable[[bytes], Got]) -> Got:
        what = f"the sidecar of {pod.name} ({path})"
        try:
            body = self._kube.from_pod(self.watched.namespace, pod.name, pod.port(port), path)
        except KubeError as error:
            raise _naming(what, error) from error
        return _read(lambda: read(body), what)

    def _add_pod(
        self,
        sample: PlacementSample,
        pod: Pod,
        runtime: told.Runtime | LoadError,
        metrics: told.ActorMetrics | LoadError,
    ) -> None:
        found = PodSample(
            name=pod.name, node=pod.node, ip=pod.ip, ready=pod.ready, leaving=pod.leaving, restarts=pod.restarts
        )
        if isinstance(runtime, told.Runtime):
            found.active_actors, found.placed = runtime.active_actors, runtime.placed
        if isinstance(metrics, told.ActorMetrics):
            found.pending_calls = metrics.pending_calls
            found.rebalanced, found.deactivated = metrics.rebalanced, metrics.deactivated
        sample.pods.append(found)
        if found.ready:  # one that comes or goes need not answer
            sample.problems += [str(answer) for answer in (runtime, metrics) if isinstance(answer, LoadError)]

    def _usage(self, node: str) -> told.Usage:
        body = self._kube.from_kubelet(node, "/metrics/resource")
        return _read(lambda: told.usage(body, self.watched.namespace), f"the kubelet of {node}")

    def _periods(self, node: str) -> told.Periods:
        body = self._kube.from_kubelet(node, "/metrics/cadvisor")
        return _read(lambda: told.periods(body, self.watched.namespace), f"the kubelet of {node}")

    def _add_limits(self, sample: PlacementSample, pods: list[Pod], found: list[told.Periods | LoadError]) -> None:
        """A kubelet that does not tell is no problem: then nothing is known of throttling, and nothing is said."""
        periods = {key: of for one in found if not isinstance(one, LoadError) for key, of in one.items()}
        limits = {pod.name: pod.cpu_limits for pod in pods}
        for pod in sample.pods:
            for name, limit in limits[pod.name].items():
                if container := pod.containers.get(name):
                    container.cpu_limit = limit
                    container.throttled = self._rates.throttled(periods, pod.name, name)

    def _add_usage(self, sample: PlacementSample, node: str, usage: told.Usage | LoadError) -> None:
        if isinstance(usage, LoadError):
            if self._kubelet_problems.get(node) != str(usage):
                self._kubelet_problems[node] = str(usage)
                sample.problems.append(f"node {node} does not tell CPU and memory: {usage}")
            return
        self._kubelet_problems.pop(node, None)
        for pod in sample.pods:
            if pod.node == node:
                pod.containers = self._rates.containers(usage, pod.name)


class _NoLeader(LoadError):
    pass


def _host(pod: Pod, found: PodSample) -> Host | None:
    """A pod as the scheduler has it, if it does: its sidecar is connected, and its app offers actors."""
    if not (found.placed and found.active_actors and pod.ip):
        return None
    return Host(
        address=f"{pod.ip}:{pod.port(INTERNAL_PORT)}",
        app_id=pod.sidecar("--app-id"),
        actor_types=sorted(found.active_actors),
    )


def _outcome(call: Callable[..., Got], *arguments: Any) -> Got | LoadError:
    try:
        return call(*arguments)
    except LoadError as error:
        return error


def _read(read: Callable[[], Got], what: str) -> Got:
    try:
        return read()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KubeError(f"{what} answers what is not understood: {error!r}") from error


def _naming(what: str, error: KubeError) -> KubeError:
    """The same, naming who did not answer; a right that is missing is missing for all of them."""
    if error.status in {None, 403}:
        return error
    return KubeError(
        f"{what} does not answer: {str(error).rpartition('error trying to reach service: ')[2]}", error.status
    )


def _joined(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values) - {""})) or "unknown"
