"""What is measured: each system has an address for its turns, and processes that are its own."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import redis as redis_client

from bench import calls, cpu
from bench.children import Child, turn_problem
from cluster import binaries, rest
from cluster.client import CHAT, MEMORY
from cluster.errors import CommandError
from cluster.forward import Forward, Reach
from cluster.kube import Kube, api_errors, wait_until
from cluster.local import ports, redis, runfile
from cluster.local.layout import LOOPBACK, REDIS_PORT
from cluster.local.programs import resolution
from cluster.target import Target, recorded

PEER: Final = "peer"
"""What all others are compared with, where it is among them."""
DAPR_SESSION: Final = "dapr-session"
TUTORIAL: Final = "tutorial"
PEERS: Final = {
    PEER: "redis_session",
    DAPR_SESSION: "dapr_session",
    TUTORIAL: "tutorial",
    "runner": "runner",
    "model": "model",
}
"""Name -> module in bench.peers."""
TUTORIAL_MEMORY: Final = "tutorial_memory"
WITH_REDIS: Final = (PEER, DAPR_SESSION, TUTORIAL)
WITH_SIDECAR: Final = (DAPR_SESSION, TUTORIAL)
STREAMS: Final = (PEER, DAPR_SESSION, "runner")
"""Peers that stream where they are asked to; ours do."""
CLUSTER: Final = "cluster"
LOCAL: Final = "local"
SYSTEMS: Final = (*PEERS, LOCAL, CLUSTER)

FIRST_PORT: Final = 21_010
"""Of peers, their models and their Redis; below 32768, as in cluster/local/layout.py."""
PORTS: Final = 20
"""From the first of one peer to that of the next."""
NODE_PORTS: Final = ("bare", "kind")
"""The clusters whose NodePorts this machine reaches: a port-forward would pin one pod."""
SCALE_SECONDS: Final = 120.0
METRICS_PORT: Final = 9090
FIRST_USER: Final = "bench-first"
DAPR_NAMESPACE: Final = "default"
"""Dapr's programs take an empty one, as `make` hands it on, for a name."""
STATE_STORE: Final = """\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: statestore}}
spec:
  type: state.redis
  version: v1
  metadata:
    - {{name: redisHost, value: "{redis}"}}
    - {{name: redisPassword, value: ""}}
    - {{name: actorStateStore, value: "true"}}
"""
EVENTS: Final = """\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: pubsub}}
spec:
  type: pubsub.redis
  version: v1
  metadata:
    - {{name: redisHost, value: "{redis}"}}
    - {{name: redisPassword, value: ""}}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {{name: conversations}}
scopes: [agent-memory-service]
spec:
  pubsubname: pubsub
  topic: conversations
  routes: {{default: /conversations}}
"""


@dataclass(frozen=True)
class System:
    """One that is up and takes turns."""

    name: str
    url: str
    scope: cpu.Scope
    counters: calls.Counters | None = None
    """What its sidecars and its Redis have counted."""
    prepare: Callable[[], None] = lambda: None
    """Called before each round of it."""
    streams: bool = False
    """Whether it sends tokens to who accepts a stream."""
    images: tuple[str, ...] = ()
    """What it was deployed from: that may be another revision than this checkout's."""


def cluster_that_is_up(cluster: str, namespace: str) -> Target | None:
    """The cluster of `make up`, if the chat answers there at an address that spreads over its pods."""
    try:
        target = recorded(cluster, namespace)
        if target.cluster not in NODE_PORTS:
            return None
        with api_errors(), Reach(kube := Kube(target)) as reach:
            url = reach.url(CHAT)
            up = bool(kube.ready_pods(target.namespace, _selector(CHAT)))
        return target if up and turn_problem(f"{url}/chat/", FIRST_USER) is None else None
    except CommandError:
        return None


@contextmanager
def started(names: list[str], pods: list[int], target: Target | None, folder: Path) -> Iterator[list[System]]:
    """Brings up what is named; what it started is ended with the block, and what it changed is put back.

    ``target`` is that of :func:`cluster_that_is_up`; ``folder`` takes the logs.

    Raises:
        CommandError: one does not come up.
    """
    with ExitStack() as stack:
        systems = []
        for number, name in enumerate(names):
            if name == CLUSTER and target:
                deployed = stack.enter_context(_Cluster(target))
                systems += [deployed.system(count) for count in pods]
            elif name == LOCAL:
                systems.append(stack.enter_context(_local(folder)))
            else:
                systems.append(stack.enter_context(_peer(name, FIRST_PORT + PORTS * number, folder)))
        yield systems


@dataclass(frozen=True)
class _App:
    """A program of a peer, and the ports of its sidecar."""

    app_id: str
    module: str
    port: int
    http_port: int
    grpc_port: int
    inner_port: int


@contextmanager
def _peer(name: str, port: int, folder: Path) -> Iterator[System]:
    """A peer with a model of its own; with Redis if it has something to keep, with sidecars if it talks to them."""
    uses: dict[int, str] = {}

    def reserved(use: str) -> int:
        number = port + len(uses)
        uses[number] = use
        return number

    def app(app_id: str, module: str) -> _App:
        return _App(app_id, module, reserved(app_id), *(reserved(f"{app_id}'s sidecar") for _ in range(3)))

    chat = app(PEER, PEERS[name])
    apps = [chat, app(MEMORY, TUTORIAL_MEMORY)] if name == TUTORIAL else [chat]
    model_port, redis_port = reserved(f"{name}'s model"), reserved(f"{name}'s Redis")
    placement_ports = [reserved(f"{name}'s placement") for _ in range(3)]
    if taken := ports.taken(uses):
        raise CommandError(f"{ports.told(taken, uses)}; end that first")
    with ExitStack() as stack:
        children = []

        def started(part: str, *command: str, **env: str) -> Child:
            child = stack.enter_context(Child(f"{name}'s {part}", command, folder / f"{name}-{part}.log", env))
            children.append(child)
            return child

        started("model", sys.executable, "-m", "offline_model", HOST=LOOPBACK, PORT=str(model_port))
        counters = None
        if name in WITH_REDIS:
            server = redis.server()
            # Nothing is written to disk: its best case, where ours has every write on disk before it answers.
            options = ["--bind", LOOPBACK, "--port", str(redis_port), "--save", "", "--appendonly", "no"]
            started("redis", *server.command, *options, "--dir", str(folder), **server.env)
            counters = partial(_redis_counts, redis_port)
        if name == TUTORIAL:
            started("placement", *_placement(*placement_ports), NAMESPACE=DAPR_NAMESPACE)
        if name in WITH_SIDECAR:
            resources = _resources(name, f"{LOOPBACK}:{redis_port}", apps, folder)
            for each in apps:
                options = _sidecar(each, resources)
                if name == TUTORIAL:  # it is called back: actors, events
                    options += [f"--app-port={each.port}", f"--placement-host-address={LOOPBACK}:{placement_ports[0]}"]
                where = {"DAPR_HOST_IP": LOOPBACK, "NAMESPACE": DAPR_NAMESPACE}
                started(f"{each.app_id}-sidecar", str(binaries.daprd()), *options, **where)
        programs = [
            started(
                f"{each.app_id}-app",
                *(sys.executable, "-m", "bench.peers", each.module),
                PORT=str(each.port),
                MODEL_BASE_URL=f"http://{LOOPBACK}:{model_port}/v1",
                REDIS_URL=f"redis://{LOOPBACK}:{redis_port}",
                DAPR_HTTP_PORT=str(each.http_port),
                DAPR_GRPC_PORT=str(each.grpc_port),
            )
            for each in apps
        ]
        url = f"http://{LOOPBACK}:{chat.port}/chat/"
        programs[0].wait_for_turn(url, FIRST_USER)
        yield System(name, url, cpu.below(*(child.pid for child in children)), counters, streams=name in STREAMS)


def _placement(port: int, health_port: int, raft_port: int) -> list[str]:
    return [
        str(binaries.placement()),
        *(f"--listen-address={LOOPBACK}", f"--port={port}", f"--healthz-port={health_port}"),
        *("--enable-metrics=false", f"--initial-cluster=dapr-placement-0={LOOPBACK}:{raft_port}"),
    ]


def _sidecar(app: _App, resources: Path) -> list[str]:
    return [
        *(f"--app-id={app.app_id}", f"--resources-path={resources}", f"--config={resources.with_suffix('.yaml')}"),
        *(f"--dapr-http-port={app.http_port}", f"--dapr-grpc-port={app.grpc_port}"),
        *(f"--dapr-internal-grpc-port={app.inner_port}", f"--dapr-listen-addresses={LOOPBACK}"),
        "--enable-metrics=false",
    ]


def _resources(name: str, redis_address: str, apps: Sequence[_App], folder: Path) -> Path:
    """The folder of the components, beside a configuration of its name by which the sidecars find each other."""
    resources = folder / f"{name}-components"
    resources.mkdir()
    components = {"statestore": STATE_STORE} | ({"events": EVENTS} if name == TUTORIAL else {})
    for file, text in components.items():
        (resources / f"{file}.yaml").write_text(text.format(redis=redis_address))
    resources.with_suffix(".yaml").write_text(resolution({app.app_id: app.inner_port for app in apps}))
    return resources


@contextmanager
def local(folder: Path, env: Mapping[str, str] = MappingProxyType({})) -> Iterator[Child]:
    """Ours by `make local`, with a state of its own: the conversations of this checkout's stay what they are.

    ``folder`` takes state and logs; ``env`` has settings of the services. It answers.
    """
    uses = {app.port: app.app_id for app in runfile.apps()}
    if taken := ports.taken(uses):  # else what answers there would be taken for this one
        raise CommandError(f"{ports.told(taken, uses)}; end that first")
    env = {"DACA_LOCAL": str(folder / "local"), "MODEL": "offline", **env}
    with Child("make local", [sys.executable, "-m", "cluster", "local"], folder / "local.log", env) as child:
        child.wait_for_turn(local_chat(), FIRST_USER)
        yield child


def local_chat() -> str:
    """The address of its turns."""
    return f"http://{LOOPBACK}:{_local_app().port}/chat/"


def local_sidecar() -> str:
    """The address of chat-service's sidecar."""
    return f"http://{LOOPBACK}:{_local_app().options['dapr-http-port']}"


def local_scope(child: Child) -> cpu.Scope:
    """Its processes, without the one that watches over them, which answers nobody."""
    scope = cpu.below(child.pid)
    return lambda processes: scope(processes) - {child.pid}


def _local_app() -> runfile.App:
    return next(app for app in runfile.apps() if app.app_id == CHAT)


@contextmanager
def _local(folder: Path) -> Iterator[System]:
    apps = {app.app_id: app for app in runfile.apps()}
    with local(folder) as child:
        metrics = {app_id: f"http://{LOOPBACK}:{apps[app_id].options['metrics-port']}" for app_id in (CHAT, MEMORY)}
        counters = partial(
            calls.together,
            [
                *(partial(_sidecar_counts, app_id, address) for app_id, address in metrics.items()),
                partial(_redis_counts, REDIS_PORT),
            ],
        )
        yield System(LOCAL, local_chat(), local_scope(child), counters, streams=True)


class _Cluster:
    """The release of `make up`; its number of chat pods is put back in the end."""

    def __init__(self, target: Target) -> None:
        self._kube = Kube(target)
        self._namespace = target.namespace
        with api_errors():
            self._check_model()
            self._replicas: int = self._deployment(CHAT).spec.replicas
            self._images = tuple(
                self._deployment(service).spec.template.spec.containers[0].image for service in (CHAT, MEMORY)
            )
            with Reach(self._kube) as reach:
                self._url = f"{reach.url(CHAT)}/chat/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with api_errors():
            if self._deployment(CHAT).spec.replicas != self._replicas:
                self._scale(self._replicas)

    def system(self, pods: int) -> System:
        """It with so many pods of chat-service."""
        name = f"{CLUSTER}, {pods} pod{'s' if pods > 1 else ''}"
        return System(name, self._url, cpu.nodes(), self._counts, partial(self._prepare, pods), True, self._images)

    def _prepare(self, pods: int) -> None:
        with api_errors():
            self._scale(pods)
            if not wait_until(lambda: self._has(pods), SCALE_SECONDS):
                raise CommandError(f"{CHAT} has not come to {pods} pods in {SCALE_SECONDS:.0f} s")
        problem: list[str | None] = []

        def answers() -> bool:
            problem.append(turn_problem(self._url, FIRST_USER))
            return problem[-1] is None

        if not wait_until(answers, SCALE_SECONDS):
            raise CommandError(f"{CHAT} takes no turns: {problem[-1]}")

    def _scale(self, pods: int) -> None:
        self._kube.apps.patch_namespaced_deployment_scale(CHAT, self._namespace, {"spec": {"replicas": pods}})

    def _has(self, pods: int) -> bool:
        """Whether there are so many, all ready, and none on its way out."""
        there = self._kube.pods(self._namespace, _selector(CHAT))
        return len(there) == pods == len(self._kube.ready_pods(self._namespace, _selector(CHAT)))

    def _counts(self) -> calls.Counts:
        counted = calls.Counts()
        with api_errors():
            for service in (CHAT, MEMORY):
                for pod in self._kube.ready_pods(self._namespace, _selector(service)):
                    with Forward(self._kube, self._namespace, f"pod/{pod.metadata.name}", METRICS_PORT) as forward:
                        counted += _sidecar_counts(service, forward.url)
        command = ("exec", "-n", self._namespace, "statefulset/redis", "--", "redis-cli", "info", "all")
        return counted + calls.of_redis(self._kube.target.kubectl(*command, timeout_seconds=30))

    def _check_model(self) -> None:
        """Raises :class:`CommandError` unless the model answers at once: all is measured with it at 0 ms."""
        provider = self._variable(CHAT, "MODEL_PROVIDER")
        if provider != "offline":
            raise CommandError(f"the cluster has the model {provider}: `make up MODEL=offline` first", exit_code=2)
        latency = self._variable("offline-model", "LATENCY_MS")
        if float(latency or 0) > 0:
            raise CommandError(f"the offline model takes {latency} ms: set its latency to 0 first", exit_code=2)

    def _variable(self, deployment: str, name: str) -> str | None:
        variables = self._deployment(deployment).spec.template.spec.containers[0].env or []
        return next((variable.value for variable in variables if variable.name == name), None)

    def _deployment(self, name: str) -> Any:
        return self._kube.apps.read_namespaced_deployment(name, self._namespace)


def _selector(service: str) -> str:
    return f"app.kubernetes.io/name={service}"


def _redis_counts(port: int) -> calls.Counts:
    with redis_client.Redis(LOOPBACK, port, decode_responses=True) as connection:
        # As text, as `redis-cli` has it: the client would make a dictionary of it.
        connection.set_response_callback("INFO", lambda answer, **_: answer)
        return calls.of_redis(str(connection.execute_command("INFO", "all")))


def _sidecar_counts(name: str, address: str) -> calls.Counts:
    return calls.of_sidecar(name, rest.call("GET", f"{address}/metrics", timeout_seconds=10).text)
