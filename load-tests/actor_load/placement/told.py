"""Reading what sidecars, placement and kubelets tell."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from actor_load.record import Container, Host

_ACTOR_METRICS: Final = "dapr_runtime_actor_"
_PERIODS: Final = "container_cpu_cfs_periods"
_THROTTLED: Final = "container_cpu_cfs_throttled_periods"
_CPU: Final = "container_cpu_usage_seconds"
_MEMORY: Final = "container_memory_working_set_bytes"


@dataclass(frozen=True)
class Runtime:
    """What a sidecar says of itself: ``GET /v1.0/metadata``."""

    version: str
    active_actors: dict[str, int]
    """Of the actor types that its app offers."""
    placed: bool
    """It is connected to placement and has its table."""


def runtime(body: bytes) -> Runtime:
    """Reads a sidecar's metadata; fields that are 0 are not in it."""
    told = json.loads(body)
    actors = told.get("actorRuntime") or {}
    return Runtime(
        version=str(told.get("runtimeVersion", "")),
        active_actors={str(item["type"]): int(item.get("count", 0)) for item in actors.get("activeActors") or []},
        placed=bool(actors.get("hostReady")),
    )


@dataclass(frozen=True)
class ActorMetrics:
    """What a sidecar counts of its actors, over all types; the counters begin with it."""

    pending_calls: int
    rebalanced: int
    deactivated: int


def actor_metrics(body: bytes) -> ActorMetrics:
    """Reads a sidecar's metrics. A counter appears with its first event: until then it is 0."""
    totals: Counter[str] = Counter()
    for family in _families(body, starts=_ACTOR_METRICS):
        totals[family.name.removeprefix(_ACTOR_METRICS)] += sum(int(sample.value) for sample in family.samples)
    return ActorMetrics(
        pending_calls=totals["pending_actor_calls"],
        rebalanced=totals["rebalanced_total"],
        deactivated=totals["deactivated_total"],
    )


@dataclass(frozen=True)
class Table:
    """Placement's table of one namespace."""

    version: int | None
    hosts: list[Host]


def table(body: bytes, namespace: str) -> Table | None:
    """Reads what a replica of placement says of its state; ``None`` where it is not the leader."""
    told = json.loads(body)
    if told is None:
        return None
    found: dict[str, Any] = (told.get("tables") or {}).get(namespace) or {}
    hosts = [
        Host(address=str(host["name"]), app_id=str(host.get("id", "")), actor_types=sorted(host.get("entities") or []))
        for host in found.get("hosts") or []
    ]
    version = found.get("version")
    return Table(None if version is None else int(version), sorted(hosts, key=lambda host: host.address))


Reading = dict[tuple[str, str], tuple[float, float]]
"""(pod, container) -> (Unix time of the measurement, CPU seconds since the container's start)."""


@dataclass(frozen=True)
class Usage:
    """What a kubelet measured in the containers of one namespace."""

    cpu: Reading
    memory_bytes: dict[tuple[str, str], int]


def usage(body: bytes, namespace: str) -> Usage:
    """Reads a kubelet's ``/metrics/resource``. It measures every 10 to 15 s and tells when."""
    cpu: Reading = {}
    memory: dict[tuple[str, str], int] = {}
    for family in _families(body, starts="container_", holds=f'namespace="{namespace}"'):
        for sample in family.samples:
            key = (sample.labels["pod"], sample.labels["container"])
            if family.name.removesuffix("_total") == _CPU and sample.timestamp is not None:
                cpu[key] = (float(sample.timestamp), sample.value)
            elif family.name == _MEMORY:
                memory[key] = int(sample.value)
    return Usage(cpu, memory)


Periods = dict[tuple[str, str], tuple[int, int]]
"""(pod, container) -> periods of the scheduler since its start, and those in which its CPU limit stopped it."""


def periods(body: bytes, namespace: str) -> Periods:
    """Reads a kubelet's ``/metrics/cadvisor``. It tells of containers that have a limit."""
    counts: dict[str, dict[tuple[str, str], int]] = {_PERIODS: {}, _THROTTLED: {}}
    for family in _families(body, starts="container_cpu_cfs_", holds=f'namespace="{namespace}"'):
        name = family.name.removesuffix("_total")
        for sample in family.samples if name in counts else ():
            if container := sample.labels.get("container"):  # without one it is the pod's own group
                counts[name][sample.labels["pod"], container] = int(sample.value)
    return {key: (of, counts[_THROTTLED].get(key, 0)) for key, of in counts[_PERIODS].items()}


class Rates:
    """CPU of containers, from what they used in all and when that was measured."""

    def __init__(self) -> None:
        self._last: Reading = {}
        self._cores: dict[tuple[str, str], float] = {}
        self._periods: Periods = {}
        self._throttled: dict[tuple[str, str], float] = {}

    def throttled(self, found: Periods, pod: str, container: str) -> float | None:
        """Share of the periods between the last two measurements in which it was stopped; the first one gives none."""
        key = (pod, container)
        if key not in found:
            return None
        periods, stopped = found[key]
        before = self._periods.get(key, found[key])
        if periods > before[0] and stopped >= before[1]:
            self._throttled[key] = (stopped - before[1]) / (periods - before[0])
        elif periods < before[0]:  # the container has started again
            self._throttled.pop(key, None)
        self._periods[key] = found[key]
        return self._throttled.get(key)

    def containers(self, found: Usage, pod: str) -> dict[str, Container]:
        """Container -> usage. CPU is that between the last two measurements; the first one gives none."""
        for key, (at, seconds) in found.cpu.items():
            if key[0] == pod:
                self._measured(key, at, seconds)
        return {
            container: Container(cpu_cores=self._cores.get((of, container)), memory_bytes=memory)
            for (of, container), memory in found.memory_bytes.items()
            if of == pod
        }

    def _measured(self, key: tuple[str, str], at: float, seconds: float) -> None:
        then, before = self._last.get(key, (at, seconds))
        if at > then and seconds >= before:
            self._cores[key] = (seconds - before) / (at - then)
        elif seconds < before:  # the container has started again
            self._cores.pop(key, None)
        self._last[key] = (at, seconds)


def _families(body: bytes, starts: str, holds: str = "") -> Iterator[Metric]:
    """The metrics of some names. A page has hundreds of others, and the parser is Python: they stay out of it."""
    lines = (line for line in body.decode().splitlines() if line.startswith(starts) and holds in line)
    return iter(text_string_to_metric_families("\n".join(lines) + "\n"))
