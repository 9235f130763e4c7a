"""`make load`: charts/load-tests on the cluster, followed to its end, its files fetched, and removed again."""

import base64
import binascii
import codecs
import io
import json
import re
import shlex
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import kubernetes
import urllib3

from cluster import bare, evidence, images
from cluster.actions import Action, take
from cluster.client import CHAT
from cluster.content import LOAD_TESTS, PLACEMENT_RELAY
from cluster.engine import ENGINE_CLUSTERS, LOCAL_REPOSITORY, answering_engine
from cluster.errors import CommandError
from cluster.kube import Kube, Pod, api_errors, wait_until
from cluster.steps import say, step
from cluster.target import Target, recorded
from cluster.versions import ROOT

RELEASE: Final = "load-tests"
CHART: Final = ROOT / "charts" / "load-tests"
RESULTS: Final = ROOT / "load-results"
DEFAULT_SCENARIO: Final = "tour"
MASTER: Final = f"job/{RELEASE}-master-1"
"""The master's Job as kubectl takes it: a release is always a new one here."""
START_SECONDS: Final = 180.0
"""Until the master runs: it may have to wait for its image and for room on a node."""
WORKERS_SECONDS: Final = 20.0
"""Until the workers have ended after their master."""
STATE_SECONDS: Final = 5.0
"""How far a pod's state may lag behind."""
GONE_SECONDS: Final = 150.0
"""Longer than a pod of the chart is given to end."""

_IMAGES: Final = (LOAD_TESTS, PLACEMENT_RELAY)
_OURS: Final = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/part-of={RELEASE}"
_THRESHOLDS: Final = {
    "max-p95": "maxP95",
    "max-p99": "maxP99",
    "max-error-rate": "maxErrorRate",
    "min-rate": "minRate",
}
_RUN_TIME: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


@dataclass(frozen=True)
class Settings:
    """What `make load` can be told; empty is the default."""

    cluster: str = ""
    """CLUSTER."""
    namespace: str = ""
    """NAMESPACE: of the release under load."""
    registry: str = ""
    """IMAGE_REGISTRY: with CLUSTER=current, where the images are pushed."""
    scenario: str = ""
    """SCENARIO: one of the locustfile's, or ``none``."""
    shape: str = ""
    """SHAPE: one of the locustfile's; then there is no scenario."""
    users: str = ""
    """USERS: at the peak."""
    run_time: str = ""
    """RUN_TIME: as Locust takes it: 300, 90s, 5m, 1h30m."""
    workers: str = ""
    """WORKERS: pods that make the load."""
    classes: str = ""
    """CLASSES: user classes, with blanks between them."""
    options: str = ""
    """LOAD_OPTIONS: more options of the locustfile, as on its command line."""

    @property
    def name(self) -> str:
        """What the run is called: its scenario, or its shape."""
        return self._scenario if self._scenario != "none" else self.shape or "constant"

    @property
    def _scenario(self) -> str:
        return self.scenario or ("none" if self.shape else DEFAULT_SCENARIO)

    def values(self) -> dict[str, Any]:
        """The chart's values that say the same.

        Raises:
            CommandError: a setting is not what it should be; the options are left to Locust.
        """
        known = json.loads((CHART / "values.schema.json").read_text())["properties"]["run"]["properties"]
        for variable, value, names in (
            ("SCENARIO", self._scenario, known["scenario"]["enum"]),
            ("SHAPE", self.shape or "constant", known["shape"]["enum"]),
        ):
            if value not in names:
                raise CommandError(f"{variable}={value} is none of {', '.join(names)}", exit_code=2)
        if self._scenario != "none" and self.shape:
            raise CommandError(f"SCENARIO={self._scenario} decides the load by itself: leave SHAPE= out", exit_code=2)
        options = _options(self.options)
        thresholds: dict[str, Any] = {
            _THRESHOLDS[name]: _number(name, options.pop(name)) for name in _THRESHOLDS if name in options
        }
        if expressions := options.pop("threshold", None):
            thresholds["expressions"] = expressions if isinstance(expressions, list) else [expressions]
        run = {
            "scenario": self._scenario,
            "shape": self.shape or None,
            "users": _count("USERS", self.users),
            "timeSeconds": _seconds(self.run_time),
            "userClasses": self.classes.split() or None,
            "options": options or None,
        }
        values = {"workers": _count("WORKERS", self.workers), "thresholds": thresholds or None, "run": _told(run)}
        return _told(values)


def load(settings: Settings) -> None:
    """One run in the cluster of `make up`. Afterwards its files are in :data:`RESULTS`, and the cluster is rid of it.

    Raises:
        CommandError: there is nothing to load, another run is under way, or this one failed; then with its exit code.
    """
    values = settings.values()
    target = recorded(settings.cluster, settings.namespace)
    say(f"cluster: {target.cluster}, namespace {target.namespace}; {settings.name}")
    kube = Kube(target)
    run = Run(kube)
    with api_errors():
        _check_chat(kube)
        run.check_alone()
        references = _images(target, settings.registry)
        run.check_alone()  # the images may have taken minutes
        run.remove()  # of one that has ended
    try:
        with api_errors():
            with step(f"a run has begun in namespace {target.namespace}"):
                target.helm(*_install(target, references, values))
            run.follow()
            run.fetch(RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{settings.name}")
            run.judge()
    except KeyboardInterrupt as error:
        raise CommandError("interrupted; the run is ended and removed", exit_code=130) from error
    finally:
        with api_errors(), step("the load tests are gone from the cluster"):
            run.remove()


def plan(settings: Settings) -> Iterator[str]:
    """The commands that :func:`load` runs on a cluster of kind or minikube, as a script; it changes nothing.

    Raises:
        CommandError: the settings are wrong, or the cluster is another.
    """
    values = settings.values()
    target = recorded(settings.cluster, settings.namespace)
    if target.cluster not in ENGINE_CLUSTERS:
        raise CommandError(f"DRY_RUN= is for kind and minikube, not for {target.cluster}", exit_code=2)
    references = images.references(LOCAL_REPOSITORY, _IMAGES)
    actions = _load_into(target, answering_engine() or "docker", references)
    helm = ("--kube-context", target.context)
    kubectl = ("kubectl", "--context", target.context, "logs", "-n", target.namespace, MASTER)
    uninstall = ("helm", "uninstall", RELEASE, "--namespace", target.namespace)
    actions += [
        Action("the run has begun", ("helm", *_install(target, references, values), *helm)),
        Action("it has ended", (*kubectl, "--container", "locust", "--follow")),
    ]
    yield from map(str, actions)
    yield f"{Action('its files are here', (*kubectl, '--container', 'results'))} | base64 --decode | tar xz"
    yield str(Action("it is gone", (*uninstall, *helm)))


class Run:
    """The one release of charts/load-tests in the target's namespace."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._namespace = kube.target.namespace
        self._jobs: Any = kubernetes.client.BatchV1Api(kube.client)

    def check_alone(self) -> None:
        """Raises :class:`CommandError` while a run is under way, whoever started it."""
        for job in self._jobs.list_namespaced_job(self._namespace, label_selector=_OURS).items:
            if not any(item.type in {"Complete", "Failed"} and item.status == "True" for item in _conditions(job)):
                end = f"{self._kube.target.typed('kubectl')} delete job -n {self._namespace} -l {_OURS}"
                raise CommandError(
                    f"a run is under way in namespace {self._namespace} ({job.metadata.name}): wait, or end it: {end}"
                )

    def follow(self) -> None:
        """Shows the master's log until the master has ended.

        Raises:
            CommandError: it does not start.
        """
        with step("the master runs"):
            wait_until(lambda: _state(self._master()) is not None or _ended(self._master()), START_SECONDS)
            if _state(self._master()) is None:
                raise CommandError(f"the master has not started{self._explained()}")
        since = None  # from the beginning
        while _state(master := self._master()) == "running":
            seen = self._show_log(master, since)
            # The pod's state may lag behind the end of its log; else the connection broke, and is made again.
            wait_until(lambda: _state(self._master()) != "running", STATE_SECONDS)
            since = int(time.monotonic() - seen) + 1
        if master is None:
            raise CommandError(f"the master's pod is gone: the run was ended{self._explained()}")
        if not wait_until(lambda: not self._pods("master") or _ended(self._master()), GONE_SECONDS):
            raise CommandError(f"the master has ended, but its pod has not{self._explained()}")

    def fetch(self, folder: Path) -> None:
        """Unpacks what the run wrote into ``folder``, and says where it is."""
        try:
            packed = base64.b64decode(self._log(self._master(), "results"), validate=False)
            with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
                if not archive.getmembers():
                    return  # it ended before it had begun, and has said why
                folder.mkdir(parents=True)
                archive.extractall(folder, filter="data")
        except (binascii.Error, tarfile.TarError, EOFError, OSError) as error:
            say(f"the results did not arrive whole ({error})")
            return
        report = folder / "report.html"
        say(f"report: {report if report.exists() else folder}")

    def judge(self) -> None:
        """Raises :class:`CommandError` with the run's exit code, unless it passed and no worker failed."""
        ended = _locust(self._master()).state.terminated
        if ended.exit_code == 2:
            raise CommandError("the run did not begin; above is why", exit_code=2)
        if ended.exit_code != 0:
            killed = f": the master was killed ({ended.reason})" if ended.exit_code > 128 else "; above is why"
            raise CommandError(f"the run failed with exit code {ended.exit_code}{killed}")
        wait_until(lambda: all(_ended(pod) for pod in self._pods("worker")), WORKERS_SECONDS)
        for pod in self._pods("worker"):
            state = _locust(pod).state.terminated
            if state is None or state.exit_code != 0:
                how = f"exit code {state.exit_code}, {state.reason}" if state else "it has not ended"
                raise CommandError(f"worker {pod.metadata.name} failed ({how}): the load was not what was asked for")

    def remove(self) -> None:
        """Ends what runs and removes the release.

        The pods go first: what a scenario has changed is put back by the master, which needs its rights for that.
        """
        self._jobs.delete_collection_namespaced_job(
            self._namespace, label_selector=_OURS, propagation_policy="Background"
        )
        gone = wait_until(lambda: not self._pods(), GONE_SECONDS)
        self._kube.target.helm("uninstall", RELEASE, "--namespace", self._namespace, "--ignore-not-found")
        if not gone:
            names = ", ".join(pod.metadata.name for pod in self._pods())
            raise CommandError(f"pods of the load tests do not end: {names}")

    def _pods(self, component: str = "") -> list[Pod]:
        selector = f"{_OURS},app.kubernetes.io/component={component}" if component else _OURS
        return self._kube.pods(self._namespace, selector)

    def _master(self) -> Pod | None:
        pods = self._pods("master")
        return pods[0] if pods else None

    def _show_log(self, master: Pod, since_seconds: int | None) -> float:
        """Prints the log as it grows; the time of its last piece. It ends with the container, or the connection."""
        more = {"since_seconds": since_seconds} if since_seconds else {}
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        seen = time.monotonic()
        with suppress(urllib3.exceptions.HTTPError):
            answer = self._kube.core.read_namespaced_pod_log(
                master.metadata.name,
                self._namespace,
                container="locust",
                follow=True,
                _preload_content=False,
                **more,
            )
            for piece in answer.stream():
                sys.stdout.write(decoder.decode(piece))
                sys.stdout.flush()
                seen = time.monotonic()
        return seen

    def _log(self, pod: Pod | None, container: str) -> bytes:
        if pod is None:
            return b""
        answer = self._kube.core.read_namespaced_pod_log(
            pod.metadata.name, self._namespace, container=container, _preload_content=False
        )
        return bytes(answer.data)

    def _explained(self) -> str:
        """Shows what the master's pod says; as the end of a message, why its Job failed, if it did."""
        if master := self._master():
            for line in evidence.explained(self._kube, master):
                say(line)
        jobs = self._jobs.list_namespaced_job(self._namespace, label_selector=_OURS).items
        told = [item.message for job in jobs for item in _conditions(job) if item.type == "Failed" and item.message]
        return "".join(f": {message}" for message in told[:1])


def _check_chat(kube: Kube) -> None:
    namespace = kube.target.namespace
    if kube.namespace(namespace) is None:
        raise CommandError(f"there is no namespace {namespace}: NAMESPACE= names that of the release under load")
    if not kube.ready_pods(namespace, f"app.kubernetes.io/name={CHAT}"):
        raise CommandError(
            f"no pod of {CHAT} is ready in namespace {namespace}: `make up` mends that, or NAMESPACE= names another"
        )


def _images(target: Target, registry: str) -> dict[str, str]:
    """Builds the images as `make up` does those of the services, and gets them to the cluster; image -> reference."""
    if target.cluster == "bare":
        return bare.build_images(ROOT, _IMAGES)
    if target.cluster == "current":
        if not registry:
            raise CommandError(
                "CLUSTER=current needs IMAGE_REGISTRY=<registry>: where this machine may push images and the "
                "cluster pulls them from",
                exit_code=2,
            )
        references, builder = images.references(registry, _IMAGES), images.builder()
        take([*images.build(builder, references), *images.push(builder, references)])
        return references
    engine = answering_engine()
    if engine is None:
        raise CommandError(
            f"CLUSTER={target.cluster} needs an engine, and neither Docker nor Podman answers: start one of the two"
        )
    references = images.references(LOCAL_REPOSITORY, _IMAGES)
    take(_load_into(target, engine, references))
    return references


def _load_into(target: Target, engine: str, references: Mapping[str, str]) -> list[Action]:
    return [*images.build(engine, references), *ENGINE_CLUSTERS[target.cluster](engine).load(references)]


def _install(target: Target, references: Mapping[str, str], values: Mapping[str, Any]) -> list[str | Path]:
    image, relay = (_value_of(references[name]) for name in _IMAGES)
    told: dict[str, Any] = {"image": image, "placementRelay": {"image": relay}, **values}
    rights = []
    if target.cluster != "current":  # where the owner decides about so strong a right
        rights.append("nodeMetrics")
    rights += _scenarios().get(values["run"].get("scenario"), [])
    if "faults" in rights and target.cluster != "current":  # as root on its nodes: the owner decides about that, too
        told["nodeFaults"] = {"enabled": True}
    if rights:
        told["rbac"] = dict.fromkeys(rights, True)
    arguments: list[str | Path] = ["upgrade", "--install", RELEASE, CHART, "--namespace", target.namespace]
    for name, value in told.items():
        arguments += ["--set-json", f"{name}={json.dumps(value)}"]
    return arguments


def names() -> list[str]:
    """The scenarios that the chart knows."""
    return list(_scenarios())


def _scenarios() -> dict[str, list[str]]:
    """Name -> the rights that it takes, as values below ``rbac`` are called."""
    found: dict[str, list[str]] = json.loads((CHART / "files" / "scenarios.json").read_text())
    return found


def _value_of(reference: str) -> dict[str, str]:
    repository, _, tag = reference.rpartition(":")
    return {"repository": repository, "tag": tag}


def _locust(pod: Pod) -> Any:
    """The status of the container that Locust runs in; ``None`` before there is one."""
    statuses = pod.status.container_statuses or []
    return next((status for status in statuses if status.name == "locust"), None)


def _state(pod: Pod | None) -> str | None:
    """``running`` or ``ended``; ``None`` before Locust has started, and where there is no pod."""
    status = _locust(pod) if pod is not None else None
    if status is None:
        return None
    return "ended" if status.state.terminated else "running" if status.state.running else None


def _ended(pod: Pod | None) -> bool:
    """Whether all of the pod's containers have ended."""
    return pod is not None and pod.status.phase in {"Succeeded", "Failed"}


def _conditions(job: Any) -> list[Any]:
    return list(job.status.conditions or [])


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _count(variable: str, text: str) -> int | None:
    if text and not (text.isdecimal() and int(text) > 0):
        raise CommandError(f"{variable}={text} is no number of 1 or more", exit_code=2)
    return int(text) if text else None


def _number(name: str, text: object) -> float:
    try:
        return float(str(text))
    except ValueError as error:
        raise CommandError(f"LOAD_OPTIONS: --{name} {text} is no number", exit_code=2) from error


def _seconds(text: str) -> int | None:
    if not text:
        return None
    found = _RUN_TIME.fullmatch(text)
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    if total := 3600 * hours + 60 * minutes + seconds:
        return total
    raise CommandError(f"RUN_TIME={text} is no time: 300, 90s, 5m or 1h30m is one", exit_code=2)


def _options(text: str) -> dict[str, Any]:
    """``--name value``, ``--name=value`` and ``--flag`` as the chart takes them: ``{name: value, flag: true}``."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise CommandError(f"LOAD_OPTIONS={text}: {error}", exit_code=2) from error
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, is_whole, value = word[2:].partition("=")
            found.setdefault(name, []).extend([value] if is_whole else [])
        elif name:
            found[name].append(word)
        else:
            raise CommandError(f"LOAD_OPTIONS={text} must be options as --name value: {word} is none", exit_code=2)
    return {name: True if not values else values if len(values) > 1 else values[0] for name, values in found.items()}
