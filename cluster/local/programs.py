"""The programs of a run: what is started, with which settings, and when each has come up."""

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from cluster import rest
from cluster.binaries import DAPR_CONTROL_PLANE, DAPRD
from cluster.local.layout import (
    DATA,
    LOOPBACK,
    PLACEMENT_HEALTH_PORT,
    PLACEMENT_METRICS_PORT,
    PLACEMENT_PORT,
    PLACEMENT_RAFT_PORT,
    PLACEMENT_RELAY_PORT,
    REDIS_PORT,
    REMINDERS,
    SCHEDULER_ETCD_PORT,
    SCHEDULER_HEALTH_PORT,
    SCHEDULER_METRICS_PORT,
    SCHEDULER_PEER_PORT,
    SCHEDULER_PORT,
    SIDECARS,
)
from cluster.local.runfile import App
from cluster.versions import ROOT

OFFLINE: Final = "offline"
MODEL: Final = "offline-model"
"""Its app id in the run file."""
NAMES: Final = SIDECARS / "names.yaml"
STREAMS: Final = ("conversations", "conversations-dead-letter")
"""The topics of components/, which are streams in Redis."""

ANSWER_SECONDS: Final = 1.0
GRACE_SECONDS: Final = "5"
"""How long Ctrl-C waits for answers that are under way."""
TRIM_SECONDS: Final = "5"
OURS: Final = ("GEMINI_API_KEY", "NAMESPACE")
"""What no program finds in its environment: the key comes through the secret store, and Dapr reads the other too."""


@dataclass(frozen=True)
class Program:
    """A program to start."""

    name: str
    command: tuple[str, ...]
    ports: Mapping[int, str]
    """Port -> what it is for."""
    ready: Callable[[], bool]
    """Whether it has come up."""
    env: Mapping[str, str] = field(default_factory=dict)
    """What it finds in its environment besides what is there."""
    folder: Path | None = None
    """The folder it runs in; by default the one that `make` was typed in."""

    def environment(self) -> dict[str, str]:
        """All that it finds in its environment."""
        seen = {name: value for name, value in os.environ.items() if name not in OURS}
        # They call each other, and a proxy of the environment has no way to this machine's loopback.
        for name in ("no_proxy", "NO_PROXY"):
            seen[name] = ",".join(filter(None, (seen.get(name), "localhost", LOOPBACK)))
        return seen | dict(self.env)


@dataclass(frozen=True)
class Service:
    """A service of ours and its sidecar."""

    app: Program
    port: int
    sidecar: Program | None
    sidecar_port: int | None
    """Of its HTTP API."""

    def drained(self) -> bool:
        """Whether it has finished what was under way, after it was asked to go."""
        return _status(f"http://{LOOPBACK}:{self.port}/healthz/app") == 503


@dataclass(frozen=True)
class Programs:
    """All that a run starts."""

    redis: Program
    trim: Program
    control_plane: tuple[Program, ...]
    """Dapr's, with the relay. Its programs are started again when they end: they lose nothing by that."""
    services: tuple[Service, ...]

    def __iter__(self) -> Iterator[Program]:
        yield self.redis
        yield self.trim
        yield from self.control_plane
        for service in self.services:
            yield service.app
            if service.sidecar is not None:
                yield service.sidecar

    @property
    def ports(self) -> dict[int, str]:
        """Port -> what it is for."""
        return {port: use for program in self for port, use in program.ports.items()}


def programs(apps: list[App], redis: tuple[str, ...], redis_env: Mapping[str, str], token: str) -> Programs:
    """What runs ``apps``.

    ``redis`` is the command of a Redis server, ``token`` what a sidecar shows to its service.
    """
    return Programs(
        _redis(redis, redis_env),
        _trim(),
        (_placement(), _placement_relay(), _scheduler()),
        tuple(_service(app, token) for app in apps),
    )


def with_model(apps: list[App], model: str) -> list[App]:
    """``apps`` with ``model`` as their provider; empty: as they are. The offline one goes if it does not answer."""
    offline = next((app for app in apps if app.app_id == MODEL), None)
    address = f"http://{LOOPBACK}:{offline.port}/v1" if offline and model == OFFLINE else ""
    if model and model != provider(apps):
        asked = {"MODEL_PROVIDER": model, "MODEL_BASE_URL": address}
        apps = [
            replace(app, env={name: value for name, value in app.env.items() if not name.startswith("MODEL_")} | asked)
            for app in apps
        ]
    return [app for app in apps if app.app_id != MODEL or provider(apps) == OFFLINE]


def provider(apps: list[App]) -> str:
    """The model provider that the services are told."""
    return next((app.env["MODEL_PROVIDER"] for app in apps if "MODEL_PROVIDER" in app.env), OFFLINE)


def names(apps: list[App]) -> str:
    """A Dapr Configuration by which the sidecars of ``apps`` find each other."""
    return resolution({app.app_id: int(app.options["dapr-internal-grpc-port"]) for app in apps if app.sidecar_ports})


def resolution(inner: Mapping[str, int]) -> str:
    """A Dapr Configuration by which sidecars of this machine find each other; ``inner``: app id -> internal port.

    Outside of Kubernetes sidecars call each other's names into the network (mDNS): that fails behind many VPNs and
    without a network, and in a classroom the neighbour answers. The resolver made for Kubernetes takes a template of
    the address, which here needs nothing but the app ids.
    """
    template = "".join(f'{{{{if eq .ID "{app_id}"}}}}{LOOPBACK}:{port}{{{{end}}}}' for app_id, port in inner.items())
    return f"""\
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: names
spec:
  nameResolution:
    component: kubernetes
    version: v1
    configuration:
      template: '{template}'
"""


def _redis(command: tuple[str, ...], env: Mapping[str, str]) -> Program:
    # As charts/daca's: the append-only file alone, and nothing is answered before it is written.
    settings = {
        "bind": LOOPBACK,
        "port": str(REDIS_PORT),
        "dir": str(DATA),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "set-proc-title": "no",  # a title overwrites the environment, by which a process is known as ours
    }
    arguments = (word for name, value in settings.items() for word in (f"--{name}", value))
    return Program("redis", (*command, *arguments), {REDIS_PORT: "Redis"}, _redis_answers, env)


def _trim() -> Program:
    command = (sys.executable, "-m", "cluster.local.trim", TRIM_SECONDS, LOOPBACK, str(REDIS_PORT), *STREAMS)
    return Program("redis.trim", command, {}, lambda: True, folder=ROOT)


def _placement() -> Program:
    return Program(
        "placement",
        (
            str(DAPR_CONTROL_PLANE.folder / "placement"),
            f"--listen-address={LOOPBACK}",
            f"--port={PLACEMENT_PORT}",
            f"--healthz-port={PLACEMENT_HEALTH_PORT}",
            f"--metrics-listen-address={LOOPBACK}",
            f"--metrics-port={PLACEMENT_METRICS_PORT}",
            f"--initial-cluster=dapr-placement-0={LOOPBACK}:{PLACEMENT_RAFT_PORT}",
        ),
        {
            PLACEMENT_PORT: "Dapr's placement",
            PLACEMENT_HEALTH_PORT: "placement's health",
            PLACEMENT_METRICS_PORT: "placement's metrics",
            PLACEMENT_RAFT_PORT: "placement's Raft",
        },
        partial(_answers, f"http://{LOOPBACK}:{PLACEMENT_HEALTH_PORT}/healthz"),
    )


def _placement_relay() -> Program:
    # One for all sidecars. In a pod it is a container beside the sidecar: see docs/placement-relay.md.
    return Program(
        "placement-relay",
        (
            sys.executable,
            "-m",
            "placement_relay",
            f"--listen={LOOPBACK}:{PLACEMENT_RELAY_PORT}",
            f"--placement={LOOPBACK}:{PLACEMENT_PORT}",
        ),
        {PLACEMENT_RELAY_PORT: "the relay to placement"},
        partial(_listens, PLACEMENT_RELAY_PORT),
    )


def _scheduler() -> Program:
    return Program(
        "scheduler",
        (
            str(DAPR_CONTROL_PLANE.folder / "scheduler"),
            f"--listen-address={LOOPBACK}",
            f"--port={SCHEDULER_PORT}",
            # Sidecars are told to come to this address; by default it is one of the machine's in its network.
            f"--override-broadcast-host-port={LOOPBACK}:{SCHEDULER_PORT}",
            f"--healthz-port={SCHEDULER_HEALTH_PORT}",
            f"--metrics-listen-address={LOOPBACK}",
            f"--metrics-port={SCHEDULER_METRICS_PORT}",
            f"--etcd-data-dir={REMINDERS}",
            f"--etcd-client-listen-address={LOOPBACK}",
            f"--etcd-client-port={SCHEDULER_ETCD_PORT}",
            f"--etcd-initial-cluster=dapr-scheduler-server-0=http://{LOOPBACK}:{SCHEDULER_PEER_PORT}",
        ),
        {
            SCHEDULER_PORT: "Dapr's scheduler",
            SCHEDULER_HEALTH_PORT: "the scheduler's health",
            SCHEDULER_METRICS_PORT: "the scheduler's metrics",
            SCHEDULER_ETCD_PORT: "the scheduler's etcd",
            SCHEDULER_PEER_PORT: "the scheduler's etcd, for its peers",
        },
        partial(_answers, f"http://{LOOPBACK}:{SCHEDULER_HEALTH_PORT}/healthz"),
    )


def _service(app: App, token: str) -> Service:
    secret = {"APP_API_TOKEN": token} if app.sidecar_ports else {}
    places = {"DAPR_HTTP_PORT": app.options["dapr-http-port"]} if app.sidecar_ports else {}
    interpreter = {"python": sys.executable}
    program = Program(
        app.app_id,
        tuple(interpreter.get(word, word) for word in app.command),
        {app.port: app.app_id},
        partial(_answers, f"http://{LOOPBACK}:{app.port}/readyz"),
        {"SHUTDOWN_GRACE_SECONDS": GRACE_SECONDS, **app.env, **places, **secret},
    )
    if not app.sidecar_ports:
        return Service(program, app.port, None, None)
    return Service(program, app.port, _sidecar(app, secret), int(app.options["dapr-http-port"]))


def _sidecar(app: App, secret: Mapping[str, str]) -> Program:
    config = ",".join([*([app.options["config"]] if "config" in app.options else []), str(NAMES)])
    options = {
        **app.options,
        "config": config,
        "dapr-listen-addresses": LOOPBACK,
        "dapr-internal-grpc-listen-address": LOOPBACK,
        "metrics-listen-address": LOOPBACK,
        "placement-host-address": f"{LOOPBACK}:{PLACEMENT_RELAY_PORT}",
        "scheduler-host-address": f"{LOOPBACK}:{SCHEDULER_PORT}",
    }
    return Program(
        f"{app.app_id}.sidecar",
        (str(DAPRD.folder / "daprd"), *(f"--{name}={value}" for name, value in options.items())),
        app.sidecar_ports,
        partial(_answers, f"http://{LOOPBACK}:{app.options['dapr-http-port']}/v1.0/healthz"),
        {"DAPR_HOST_IP": LOOPBACK, **secret},
        SIDECARS,
    )


def _answers(url: str) -> bool:
    status = _status(url)
    return status is not None and status < 300


def _status(url: str) -> int | None:
    try:
        return rest.call("GET", url, timeout_seconds=ANSWER_SECONDS).status
    except rest.Unreachable:
        return None


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), ANSWER_SECONDS):
            return True
    except OSError:
        return False


def _redis_answers() -> bool:
    try:
        with socket.create_connection((LOOPBACK, REDIS_PORT), ANSWER_SECONDS) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
