"""The charts of a report: what is drawn, under which title, with what is said of it in words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from actor_load import words
from actor_load.palette import BAD, INK, SERIES
from actor_load.record import PodSample, Record, Summary
from actor_load.report import pods as podlist
from actor_load.report import series
from actor_load.report.charts import (
    CORES,
    MIB,
    MILLISECONDS,
    PERCENT,
    PLAIN,
    Limit,
    Series,
    Shares,
    TimeChart,
    coloured,
    configured,
    safe,
)
from actor_load.report.marks import marks
from actor_load.report.series import Row, Span
from actor_load.report.spread import Spread
from actor_load.subjects import ALL, RETRY, TURN, belongs, of, present
from actor_load.thresholds import Threshold, given

PAGE_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"

LATENCIES: Final = (
    Series("p50", SERIES[0], 2.25),
    Series("p95", SERIES[1], 1.75),
    Series("p99", SERIES[3], 1.5, (6, 2)),
    Series("slowest", SERIES[7], 1.25, (1, 2)),
)
DUE: Final = Series("due", SERIES[1], 1.5, (5, 3))
RATES: Final = (Series("answered", SERIES[0]), Series("failed", BAD, 2))
HOSTS: Final = (
    Series("actor hosts", SERIES[0], 2.5),
    Series("ready pods", SERIES[1], 1.75, (5, 3)),
    Series("changes of the table", SERIES[7], 1.5, (1, 2)),
)
MOVED: Final = (Series("rebalanced", SERIES[1], 2), Series("deactivated", SERIES[7], 1.5, (5, 3)))
SMALL: Final = 150
LARGE: Final = 230


@dataclass(frozen=True)
class Figure:
    """A chart with its words."""

    title: str
    note: str
    """Units, and how to read it."""
    words: str
    """What it shows, for those who do not see it."""
    chart: TimeChart | Shares
    height: int = SMALL
    wide: bool = False

    @property
    def legend(self) -> Sequence[Series]:
        """Names and colours of what is drawn."""
        return self.chart.series if isinstance(self.chart, TimeChart) else ()

    def spec(self) -> dict[str, Any]:
        """For the page."""
        if isinstance(self.chart, TimeChart):
            drawn = self.chart.draw(zoomed=True, height=self.height)
        else:
            drawn = self.chart.draw()
        return configured(drawn, self.chart.data(), PAGE_FONT)


class Figures:
    """Draws what the record has; a chart that would be empty is ``None`` or left out."""

    def __init__(self, record: Record, started: float | None = None, ended: float | None = None) -> None:
        """Of the whole run, or of the time between ``started`` and ``ended``."""
        self.record = record
        self.span = Span.of(record, started, ended)
        self.marks = marks(record, self.span)
        self.labels = {pod: safe(label) for pod, label in podlist.labels(record).items()}
        others = [label for label in self.labels.values() if label.endswith(" others")]
        self._pods = coloured(
            [label for label in dict.fromkeys(self.labels.values()) if label not in others] + others[:1]
        )

    @property
    def binned(self) -> str:
        """How wide a point is."""
        return f"Each point is {words.lasted(self.span.width)}."

    def traffic(self, *, rate: int = SMALL, latency: int = LARGE, wide: bool = True) -> list[Figure]:
        """How many turns a second, and how long they took; then the same of actor calls. ``rate`` and ``latency`` are
        heights."""
        found = []
        for what in present(self.record):
            found += [self.throughput(what, height=rate, wide=wide), self.latency(what, height=latency, wide=wide)]
        return [figure for figure in found if figure]

    def latency(self, what: str = TURN, *, height: int = LARGE, wide: bool = True) -> Figure | None:
        """Percentiles over time."""
        rows = series.latencies(self.record, self.span, what)
        if not any(row["p50"] is not None for row in rows):
            return None
        limits = [
            Limit(one.bound, one.written)
            for one in self._thresholds(what)
            if one.metric == "max" or one.metric.startswith("p")
        ]
        seen = self._seen(what)
        return self._over_time(
            f"Latency of {of(what)}",
            f"By the time of the answer, logarithmic; failed requests count for the slowest alone. {self.binned}",
            f"Half of them took {words.latency(seen.percentile_ms(50))} or less, 95 % "
            f"{words.latency(seen.percentile_ms(95))}, the slowest {words.latency(seen.slowest_ms)}.",
            rows,
            LATENCIES,
            unit=MILLISECONDS,
            logarithmic=True,
            gaps=True,
            limits=limits,
            height=height,
            wide=wide,
        )

    def throughput(self, what: str = TURN, *, height: int = SMALL, wide: bool = True) -> Figure | None:
        """Due, answered and failed a second."""
        seen = self._seen(what)
        if not seen.answered:
            return None
        rows = series.rates(self.record, self.span, what)
        offered = any("due" in row for row in rows)
        title = of(what).capitalize()
        return self._over_time(
            f"{title} a second",
            f"{'Due, as offered; answered' if offered else 'Answered'} without failure, by the time of the answer. "
            f"A red triangle marks where some failed. {self.binned}",
            f"{seen.answered:,} {of(what)} were answered, {seen.failed:,} of them failed.",
            rows,
            (DUE, *RATES) if offered else RATES,
            limits=[*self._least_rates(what), *self._knees(what)],
            gaps=True,
            bars="failed",
            height=height,
            wide=wide,
        )

    def placement(self, *, height: int = LARGE, wide: bool = True) -> Figure | None:
        """Active actors of each pod, one on the other."""
        rows = self._of_pods(series.active)
        if not any(value for row in rows for name, value in row.items() if name != "at"):
            return None
        present = {name for row in rows for name, value in row.items() if name != "at" and value is not None}
        # A gap in a stack would be a slope down to the next.
        filled: list[Row] = [{name: row.get(name) or 0.0 for name in ("at", *present)} for row in rows]
        return self._over_time(
            "Active actors by pod",
            "What each sidecar says it hosts, one on the other.",
            f"{words.counted(len(present), 'pod')} hosted actors, at most {self._most_actors():,} at a time.",
            filled,
            [one for one in self._pods if one.name in present],
            stacked=True,
            stepped=True,
            height=height,
            wide=wide,
        )

    def table(self) -> list[Figure]:
        """Hosts and table, moved actors, calls that wait."""
        if not self.record.placement:
            return []
        hosts = self._over_time(
            "Hosts and placement's table",
            "The table's changes count from the first look.",
            "Actor hosts in placement's table, pods that are ready, and how often the table changed.",
            series.gauges(series.hosts(self.record), self.span),
            HOSTS,
            stepped=True,
        )
        figures = [hosts]
        if any(pod.rebalanced is not None for sample in self.record.placement for pod in sample.pods):
            figures.append(
                self._over_time(
                    "Actors that left a pod",
                    "Since the first look: rebalanced to another pod, and deactivated for whatever reason.",
                    "Actors that were rebalanced, and that were deactivated.",
                    series.gauges(series.moved(self.record), self.span),
                    MOVED,
                    stepped=True,
                )
            )
        if waiting := series.pending(self.record, self.span):
            figures.append(
                self._over_time(
                    "Calls that wait for their actor",
                    "In all sidecars together.",
                    f"At most {max(row['pending calls'] or 0 for row in waiting):,.0f} calls waited.",
                    waiting,
                    [Series("pending calls", SERIES[3], 2)],
                    stepped=True,
                )
            )
        return figures

    def resources(self) -> list[Figure]:
        """CPU and memory of each container, pod by pod."""
        names = dict.fromkeys(
            name for sample in self.record.placement for pod in sample.pods for name in pod.containers
        )
        figures = []
        for kind, note, unit, top, field in (
            ("CPU", "Cores, pod by pod.", CORES, 0.1, "cpu_cores"),
            ("Throttling", "Share of the periods in which the CPU limit stopped it.", PERCENT, 0.1, "throttled"),
            ("Memory", "Pod by pod.", MIB, 1.0, "memory_bytes"),
        ):
            for name in names:
                rows = self._of_pods(partial(_used, container=name, field=field), mean=True)
                present = {key for row in rows for key, value in row.items() if value is not None}
                if not present - {"at"}:
                    continue
                figures.append(
                    self._over_time(
                        f"{kind} of {name}",
                        note,
                        f"{kind} that the container {name} used in {words.counted(len(present) - 1, 'pod')}.",
                        rows,
                        [one for one in self._pods if one.name in present],
                        unit=unit,
                        least_top=top,
                        limits=self._cpu_limits(name) if kind == "CPU" else (),
                    )
                )
        return figures

    def _cpu_limits(self, container: str) -> list[Limit]:
        limits = {
            limit
            for sample in self.record.placement
            for pod in sample.pods
            if (limit := _used(pod, container, "cpu_limit")) is not None
        }
        return [Limit(limit, f"limit {limit:g}") for limit in sorted(limits)]

    def generator(self) -> list[Figure]:
        """CPU of the generator's processes, and users."""
        if not self.record.generator:
            return []
        processes = [
            (at, {safe(name): value for name, value in of.items()}) for at, of in series.by_process(self.record)
        ]
        names = sorted({name for _, of in processes for name in of})
        return [
            self._over_time(
                "CPU of the load generator",
                "Cores by process. A process has one at most; near it, its own waiting is part of the latencies.",
                f"The busiest process used {max(sample.cpu_cores for sample in self.record.generator):.2f} cores.",
                series.gauges(processes, self.span, mean=True),
                coloured(names),
                unit=CORES,
                limits=[Limit(1, "one core")],
                least_top=1.2,
            ),
            self._over_time(
                "Users",
                "Simulated people and callers, all processes together.",
                "Users that were running.",
                series.gauges(series.users(self.record), self.span),
                [Series("users", SERIES[2], 2)],
                stepped=True,
            ),
        ]

    def shares(self, spread: Spread) -> Figure:
        """Of one settled table."""
        names = podlist.short_names(self.record)
        rows: list[dict[str, float | str]] = [
            {
                "pod": names[pod.pod],
                "actors": pod.actors,
                "share": pod.share,
                "predicted": pod.predicted,
                "ideal": spread.ideal,
            }
            for pod in sorted(spread.pods, key=lambda pod: -pod.predicted)
        ]
        return Figure(
            f"{words.counted(len(rows), 'pod')}, at {words.elapsed(spread.at - self.span.origin)}",
            f"Fullest pod {spread.skew:.2f} times the ideal; the ring predicts {spread.predicted_skew:.2f}.",
            "; ".join(f"{row['pod']} {row['share']:.1%}, predicted {row['predicted']:.1%}" for row in rows),
            Shares("shares", rows),
        )

    def _seen(self, what: str) -> Summary:
        first, last = self.span.started, self.span.ended
        return Summary.of(
            (one for one in self.record.seconds if first <= one.at < last and belongs(one.name, what)), last - first
        )

    def _thresholds(self, what: str) -> list[Threshold]:
        """Those of the whole run, which can be drawn across."""
        return [one for one in given(self.record.settings) if one.what in {what, ALL} and one.phase is None]

    def _least_rates(self, what: str) -> list[Limit]:
        """What is asked of all requests together can be compared with turns or calls only where there are no others."""
        alone = present(self.record) == [what]
        return [
            Limit(one.bound, one.written)
            for one in self._thresholds(what)
            if one.metric == "rate" and (alone or one.what == what)
        ]

    def _knees(self, what: str) -> list[Limit]:
        """The knees that were found in this time with such requests alone."""
        return [
            Limit(section.knee.rate, f"knee {words.rate(section.knee.rate)}/s", INK)
            for section in self.record.sections
            if section.knee
            and self.span.started <= section.started
            and section.ended <= self.span.ended
            and self._alone(what, section.started + 1, section.ended)
        ]

    def _alone(self, what: str, started: float, ended: float) -> bool:
        """Whether nothing else was answered in whole seconds of that time, but for retries."""
        names = {second.name for second in self.record.seconds if int(started) <= second.at < int(ended)}
        return all(belongs(name, what) or belongs(name, RETRY) for name in names)

    def _over_time(
        self,
        title: str,
        note: str,
        said: str,
        rows: list[Row],
        lines: Sequence[Series],
        *,
        height: int = SMALL,
        wide: bool = False,
        unit: str = PLAIN,
        **how: Any,
    ) -> Figure:
        chart = TimeChart(title, rows, lines, self.span, self.marks, unit=unit, **how)
        return Figure(title, note, said, chart, height, wide)

    def _of_pods(self, value: Callable[[PodSample], float | None], *, mean: bool = False) -> list[Row]:
        return series.gauges(series.by_pod(self.record, value, self.labels), self.span, mean=mean)

    def _most_actors(self) -> int:
        return max(
            (
                sum(sum((pod.active_actors or {}).values()) for pod in sample.pods)
                for sample in self.record.placement
                if self.span.bin_of(sample.at) is not None
            ),
            default=0,
        )


def _used(pod: PodSample, container: str, field: str) -> float | None:
    value: float | None = getattr(pod.containers.get(container), field, None)
    return value / 1024**2 if value is not None and field == "memory_bytes" else value
