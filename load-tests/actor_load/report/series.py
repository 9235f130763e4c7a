"""From the record to points that a chart draws, in bins: a run of hours makes no bigger page than one of minutes.

A point is a row of a chart's data: ``at`` in milliseconds since the start of the run, and a number for each series
(``None`` where there was nothing to measure).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

from actor_load.history import MOST_POINTS, point_width
from actor_load.record import (
    GeneratorSample,
    Histogram,
    PlacementSample,
    PodSample,
    Record,
    percentile,
)
from actor_load.subjects import ALL, TURN, belongs

Row = dict[str, float | None]

REQUESTS_A_BIN: Final = 20
"""A percentile of fewer says little: slow runs get wider bins."""

FEWEST_POINTS: Final = 60
"""About as many bins there are at least, however few requests they have."""

PERCENTILES: Final = {"p50": 50, "p95": 95, "p99": 99}


@dataclass(frozen=True)
class Span:
    """A part of a run, cut into bins of ``width`` whole seconds."""

    run: tuple[float, float]
    """When the run started and ended; it counts nothing before and after."""
    started: int
    ended: int
    width: int

    @classmethod
    def of(cls, record: Record, started: float | None = None, ended: float | None = None) -> "Span":
        """The whole run, or what lies between the two times."""
        first = int(started or record.started)
        last = max(ceil(ended or record.ended), first + 1)
        lasted = min(last, record.ended) - max(first, record.started)
        answered = sum(second.answered for second in record.seconds if first <= second.at < last)
        wanted = min(REQUESTS_A_BIN * lasted / max(answered, 1), 0.95 * lasted / FEWEST_POINTS)
        # What a long run has added up is not taken apart again.
        widest = max((second.width for second in record.seconds if first <= second.at < last), default=1)
        return cls((record.started, record.ended), first, last, point_width(max(wanted, lasted / MOST_POINTS, widest)))

    @property
    def origin(self) -> int:
        """What ``at`` counts from."""
        return int(self.run[0])

    @property
    def duration(self) -> int:
        """Seconds."""
        return self.ended - self.started

    @property
    def bins(self) -> range:
        """Their numbers. What is left at the end and less than half a bin goes to the last one."""
        end = min(float(self.ended), self.run[1])
        return range(max(1, int((end - self.started) / self.width + 0.5)))

    def bin_of(self, at: float) -> int | None:
        """The number of the bin that a time belongs to; ``None`` outside of the span."""
        return min(int(at - self.started) // self.width, self.bins[-1]) if self.started <= at < self.ended else None

    def at(self, number: int) -> float:
        """Where a bin starts, in milliseconds since the start of the run."""
        return (self.started + number * self.width - self.origin) * 1000

    def seconds(self, number: int) -> float:
        """How long a bin is, as far as the run lasted: the first and the last may be cut short."""
        start = self.started + number * self.width
        end = self.ended if number == self.bins[-1] else start + self.width
        return max(min(end, self.run[1]) - max(start, self.run[0]), 0.001)

    @property
    def domain(self) -> tuple[float, float]:
        """Start and end, in milliseconds since the start of the run."""
        return (self.started - self.origin) * 1000, (self.ended - self.origin) * 1000


def latencies(record: Record, span: Span, what: str = ALL) -> list[Row]:
    """``p50``, ``p95``, ``p99`` (ms, of those that did not fail) and ``slowest`` (ms, of all) of every bin, by when
    they were answered.

    ``alone`` marks a bin with latencies between two without any, which a line cannot show.
    """
    histograms: dict[int, Histogram] = defaultdict(Counter)
    failures: dict[int, Histogram] = defaultdict(Counter)
    for second in record.seconds:
        number = span.bin_of(second.at)
        if number is not None and belongs(second.name, what):
            histograms[number].update(second.latency_ms)
            failures[number].update(second.failed_ms)
    return [
        {
            "at": span.at(number),
            **{name: percentile(histograms[number], percent) for name, percent in PERCENTILES.items()},
            "slowest": max([*histograms[number], *failures[number]], default=None),
            "alone": float(bool(histograms[number]) and not histograms[number - 1] and not histograms[number + 1]),
        }
        for number in span.bins
    ]


def rates(record: Record, span: Span, what: str = ALL) -> list[Row]:
    """``answered`` (without failure) and ``failed`` of every bin, a second, by when they were answered; of turns
    ``due``, too."""
    answered: Counter[int] = Counter()
    failed: Counter[int] = Counter()
    due: Counter[int] = Counter()
    for second in record.due if what == TURN else ():
        number = span.bin_of(second.at)
        if number is not None:
            due[number] += second.answered
    for second in record.seconds:
        number = span.bin_of(second.at)
        if number is not None and belongs(second.name, what):
            answered[number] += second.answered - second.failed
            failed[number] += second.failed
    return [
        {
            "at": span.at(number),
            "answered": round(answered[number] / span.seconds(number), 3),
            "failed": round(failed[number] / span.seconds(number), 3),
            **({"due": round(due[number] / span.seconds(number), 3)} if due else {}),
        }
        for number in span.bins
    ]


def gauges(samples: Iterable[tuple[float, Mapping[str, float]]], span: Span, *, mean: bool = False) -> list[Row]:
    """The last value in each bin of each series, or the mean; bins without a sample are left out."""
    found: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    names: dict[str, None] = {}
    for at, values in samples:
        number = span.bin_of(at)
        if number is not None:
            for name, value in values.items():
                found[number][name].append(value)
                names[name] = None
    return [
        {
            "at": span.at(number),
            **{name: _one(found[number][name], mean=mean) if name in found[number] else None for name in names},
        }
        for number in sorted(found)
    ]


def by_process(record: Record) -> list[tuple[float, dict[str, float]]]:
    """CPU cores of each process of the generator, sample by sample."""
    return [(sample.at, {sample.process: sample.cpu_cores}) for sample in record.generator]


def users(record: Record) -> list[tuple[float, dict[str, float]]]:
    """Users of all processes together, as far as they had reported at each time."""
    latest: dict[str, int] = {}
    points = []
    for sample in sorted(record.generator, key=_when):
        latest[sample.process] = sample.users
        points.append((sample.at, {"users": float(sum(latest.values()))}))
    return points


def by_pod(
    record: Record, value: Callable[[PodSample], float | None], names: Mapping[str, str]
) -> list[tuple[float, dict[str, float]]]:
    """A number of each pod, where it is known, under the name that the pod goes by in ``names``.

    Pods that go by one name are added up.
    """
    points = []
    for sample in record.placement:
        values: dict[str, float] = defaultdict(float)
        for pod in sample.pods:
            number = value(pod)
            if number is not None:
                values[names[pod.name]] += number
        points.append((sample.at, values))
    return points


def hosts(record: Record) -> list[tuple[float, dict[str, float]]]:
    """Hosts in placement's table, ready pods, and how often the table has changed since the first look."""
    first = next((sample.version for sample in record.placement if sample.version is not None), None)
    return [
        (
            sample.at,
            {
                "actor hosts": float(len(sample.hosts)),
                "ready pods": float(sum(pod.ready and not pod.leaving for pod in sample.pods)),
                **(
                    {"changes of the table": float(sample.version - first)}
                    if sample.version is not None and first is not None
                    else {}
                ),
            },
        )
        for sample in record.placement
    ]


def moved(record: Record) -> list[tuple[float, dict[str, float]]]:
    """Actors that left a pod for another, and actors that were deactivated, since the first look.

    The sidecars count from their own start, and take what they counted with them when they end.
    """
    there = {pod.name for sample in record.placement[:1] for pod in sample.pods}
    totals = {"rebalanced": 0.0, "deactivated": 0.0}
    last: dict[tuple[str, str], int] = {}
    points = []
    for sample in record.placement:
        for pod in sample.pods:
            for name, count in (("rebalanced", pod.rebalanced), ("deactivated", pod.deactivated)):
                if count is None:
                    continue
                # A pod that was there at the first look had counted before; one that came later counts from 0.
                before = last.get((pod.name, name), count if pod.name in there else 0)
                # A container that restarted counts from 0 again.
                totals[name] += count - before if count >= before else count
                last[pod.name, name] = count
        points.append((sample.at, dict(totals)))
    return points


def pending(record: Record, span: Span) -> list[Row]:
    """The most actor calls that waited in all sidecars together, in each bin."""
    most: dict[int, float] = {}
    for sample in record.placement:
        number = span.bin_of(sample.at)
        counts = [pod.pending_calls for pod in sample.pods if pod.pending_calls is not None]
        if number is not None and counts:
            most[number] = max(most.get(number, 0.0), float(sum(counts)))
    return [{"at": span.at(number), "pending calls": value} for number, value in sorted(most.items())]


def active(pod: PodSample) -> float | None:
    """Active actors of all types of a pod."""
    return None if pod.active_actors is None else float(sum(pod.active_actors.values()))


def _one(values: list[float], *, mean: bool) -> float:
    return round(sum(values) / len(values) if mean else values[-1], 4)


def _when(sample: PlacementSample | GeneratorSample) -> float:
    return sample.at
