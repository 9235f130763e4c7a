"""What a run leaves: the record that thresholds judge and every report shows, as one JSON document.

Times are Unix times in seconds, latencies milliseconds, memory bytes, CPU cores (1.0 is one core in full use).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

TURN_PREFIX: Final = "turn"
"""Requests of a name that starts so are turns: each counts once, with all its tries."""

RETRY_PREFIX: Final = "retry"
"""Tries more of a turn are counted under a name that starts so; they are no requests of their own."""

SCHEMA_VERSION: Final = 1
"""Of the record. It grows when a field goes or means something else, so that an old one is not read as a new one."""

Histogram = Counter[float]
"""Latency, rounded by :func:`rounded` -> requests."""


EventKind = Literal["phase", "action", "settled", "problem"]
"""The load changes; the scenario did something to the cluster; the cluster is at rest again; a surprise."""


PhaseName = Literal[
    "growth", "level", "ramp", "plateau", "usual", "spike", "back", "step", "overload", "load", "change"
]
"""What a stretch of a run is for: see :mod:`actor_load.phases`."""


class Part(BaseModel):
    """Any part of a record: what it does not know is an error, so that a misspelt field does not get lost."""

    model_config = ConfigDict(extra="forbid")


class Second(Part):
    """What was answered within one second under one name. Failed requests are among the answered, and have latencies of
    their own: a service that fails at once would look quick."""

    at: int
    width: int = 1
    """Seconds from ``at`` on that it may be of: a long run adds the older ones up (:mod:`actor_load.history`)."""
    name: str
    """As Locust's tables show it."""
    answered: int = 0
    failed: int = 0
    latency_ms: dict[float, int] = Field(default_factory=dict)
    """Of those that did not fail."""
    failed_ms: dict[float, int] = Field(default_factory=dict)
    """Of those that did."""

    def add(self, item: Mapping[str, Any]) -> None:
        """Adds to it what ``item``, a mapping with the same names, has counted."""
        self.answered += item["answered"]
        self.failed += item["failed"]
        for histogram, counted in ((self.latency_ms, item["latency_ms"]), (self.failed_ms, item["failed_ms"])):
            for latency, count in counted.items():
                histogram[latency] = histogram.get(latency, 0) + count


class Failure(Part):
    """Requests that failed alike."""

    name: str
    error: str
    count: int


class GeneratorSample(Part):
    """One process of the load generator; on few cores it is part of the result."""

    at: float
    process: str
    """``local``, ``master`` or a worker's id."""
    cpu_cores: float
    memory_bytes: int
    users: int


class Event(Part):
    """Something that happened during the run, marked in every chart over time."""

    at: float
    kind: EventKind
    text: str
    phase: PhaseName | None = None
    """The phase that begins with it; of a problem, what the phase under way turns out to be."""


class Host(Part):
    """An actor host as placement's table has it."""

    address: str
    """``ip:port`` of its sidecar, the key of Dapr's ring."""
    app_id: str
    actor_types: list[str]


class Container(Part):
    """What one container of a pod used since the sample before."""

    cpu_cores: float | None = None
    memory_bytes: int | None = None
    cpu_limit: float | None = None
    """Cores; ``None`` where it has none."""
    throttled: float | None = None
    """Share of the scheduler's periods in which that limit stopped it, 0 to 1; ``None`` where nobody tells."""


class PodSample(Part):
    """One pod that hosts actors, or could: what Kubernetes, its sidecar and its sidecar's metrics say."""

    name: str
    node: str
    ip: str
    ready: bool
    leaving: bool
    """It is being deleted."""
    restarts: int
    active_actors: dict[str, int] | None = None
    """Actor type -> active actors; ``None`` where the sidecar did not say."""
    placed: bool | None = None
    """Its sidecar is connected to placement and has a table of it; ``None`` where the sidecar did not say."""
    pending_calls: int | None = None
    """Actor calls that wait in the sidecar."""
    rebalanced: int | None = None
    """Actors that its sidecar has let go since it started: moved, drained or idle, whatever the metric is called."""
    deactivated: int | None = None
    """Of these, those whose app has confirmed it."""
    containers: dict[str, Container] = Field(default_factory=dict)


Placer = Literal["placement", "scheduler"]
"""The part of Dapr that places actors: its Placement service, by a ring, or its scheduler (1.19), by rendezvous."""


class PlacementSample(Part):
    """The placement view at one moment."""

    at: float
    placer: Placer = "placement"
    version: int | None = None
    """Of placement's table; it grows with every change. The scheduler tells none."""
    leader: str = ""
    """The pod of placement that has the table; empty where none says that it leads."""
    hosts: list[Host] = Field(default_factory=list)
    pods: list[PodSample] = Field(default_factory=list)
    problems: list[str] = Field(default_factory=list)
    """What could not be asked, a line each; the sample lacks it."""


class Check(Part):
    """Something that had to hold: a threshold of the run, or a claim of a scenario."""

    name: str
    passed: bool
    detail: str
    """What was measured, and against what: one line."""


class Figure(Part):
    """One number of a section, ready to be shown."""

    name: str
    value: str
    note: str = ""


class Table(Part):
    """A table of a section."""

    title: str
    columns: list[str]
    rows: list[list[str]]


class Knee(Part):
    """The highest rate that kept within the bounds of a search."""

    rate: float
    """Requests answered without failure in a second."""
    users: int
    p95_ms: float | None


class Section(Part):
    """What one scenario did and found."""

    title: str
    text: str
    started: float
    ended: float
    figures: list[Figure] = Field(default_factory=list)
    tables: list[Table] = Field(default_factory=list)
    checks: list[Check] = Field(default_factory=list)
    knee: Knee | None = None
    """Where the section looked for one and found it."""


class Record(Part):
    """A whole run."""

    schema_version: int = SCHEMA_VERSION
    title: str
    started: float
    ended: float
    settings: dict[str, str] = Field(default_factory=dict)
    """Options that decide what the run does."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of the parts: Locust, Dapr's sidecar and control plane, Kubernetes, the images under load."""
    seconds: list[Second] = Field(default_factory=list)
    due: list[Second] = Field(default_factory=list)
    """The turns among them by the second in which they were due, or sent."""
    failures: list[Failure] = Field(default_factory=list)
    generator: list[GeneratorSample] = Field(default_factory=list)
    events: list[Event] = Field(default_factory=list)
    placement: list[PlacementSample] = Field(default_factory=list)
    sections: list[Section] = Field(default_factory=list)
    checks: list[Check] = Field(default_factory=list)
    """The thresholds of the run."""

    @model_validator(mode="before")
    @classmethod
    def _of_this_version(cls, told: Any) -> Any:
        """Said before anything else is: a record of another version has other fields, too."""
        version = told.get("schema_version", SCHEMA_VERSION) if isinstance(told, dict) else SCHEMA_VERSION
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"it has version {version} of the record, and this program reads version {SCHEMA_VERSION}: "
                "read it with the load tests that wrote it"
            )
        return told

    @property
    def passed(self) -> bool:
        """Whether every check held."""
        return all(check.passed for check in self.all_checks)

    @property
    def knee(self) -> Knee | None:
        """The first that a section found."""
        return next((section.knee for section in self.sections if section.knee), None)

    @property
    def all_checks(self) -> list[Check]:
        """Those of the run and those of its sections."""
        return [*self.checks, *(check for section in self.sections for check in section.checks)]

    def summary(self, started: float | None = None, ended: float | None = None, prefix: str = "") -> "Summary":
        """Of the seconds in ``[started, ended)`` under names that start with ``prefix``; retries only if asked for."""
        first = started or self.started
        last = ended or self.ended
        return Summary.of(
            (
                second
                for second in self.seconds
                if int(first) <= second.at < (last if ended else last + 1)  # the run's last second counts
                and second.name.startswith(prefix)
                and (prefix.startswith(RETRY_PREFIX) or not second.name.startswith(RETRY_PREFIX))
            ),
            last - first,
        )


class Summary(Part):
    """Many seconds taken together."""

    duration: float
    """Seconds."""
    answered: int
    failed: int
    latency_ms: dict[float, int]
    """Of those that did not fail."""
    failed_ms: dict[float, int]
    """Of those that did."""

    @classmethod
    def of(cls, seconds: Iterable[Second], duration: float) -> Self:
        """Adds seconds up; ``duration`` is the time they were taken in."""
        histogram: Histogram = Counter()
        failures: Histogram = Counter()
        answered = failed = 0
        for second in seconds:
            answered += second.answered
            failed += second.failed
            histogram.update(second.latency_ms)
            failures.update(second.failed_ms)
        return cls(duration=duration, answered=answered, failed=failed, latency_ms=histogram, failed_ms=failures)

    @property
    def rate(self) -> float:
        """Requests answered without failure in a second."""
        return (self.answered - self.failed) / self.duration if self.duration else 0.0

    @property
    def error_rate(self) -> float:
        """Share of the requests that failed, 0 to 1."""
        return self.failed / self.answered if self.answered else 0.0

    @property
    def slowest_ms(self) -> float | None:
        """Of all, as those who failed have waited, too; ``None`` where there was none."""
        return max([*self.latency_ms, *self.failed_ms], default=None)

    def percentile_ms(self, percent: float) -> float | None:
        """The latency that ``percent`` of those that did not fail kept within (nearest rank); ``None`` without one."""
        return percentile(self.latency_ms, percent)


def percentile(histogram: Mapping[float, int], percent: float) -> float | None:
    """The latency at the nearest rank of ``percent``, 0 to 100; ``None`` for an empty histogram."""
    left = max(1, ceil(sum(histogram.values()) * percent / 100))
    for latency in sorted(histogram):
        left -= histogram[latency]
        if left <= 0:
            return latency
    return None


def rounded(latency_ms: float) -> float:
    """To three significant digits: at most half a percent off, and a histogram stays small."""
    return float(f"{max(latency_ms, 0.001):.3g}")
