"""What the whole run comes to, in a row of figures: the page, the picture and the terminal begin with it."""

from collections import defaultdict
from itertools import groupby
from typing import Final

from actor_load import words
from actor_load.record import RETRY_PREFIX, Check, Figure, GeneratorSample, Record
from actor_load.report import pods
from actor_load.subjects import CALL, TURN, of, phases_of, present, summary

BUSY_CORES: Final = 0.85
"""A process of Locust is one thread: above this its own waiting is part of the latencies that it measures."""

PERCENTILES: Final = (50, 95, 99, 99.9)
THROTTLED: Final = 0.01
"""A container that was stopped by its CPU limit in a larger share of its scheduling periods is worth a warning."""

PHASE_COLUMNS: Final = (
    *("of", "phase", "time", "due a second", "answered a second", "failed"),
    *(f"p{percent:g}" for percent in PERCENTILES),
    "slowest",
)


def headline(record: Record) -> list[Figure]:
    """The knee, where it was looked for; rates, latencies and failures of turns and of actor calls, each by itself;
    retries, pods, generator."""
    figures = [*_knee(record), *(figure for what in present(record) for figure in _of(record, what))]
    figures.append(
        Figure(
            name="retried",
            value=f"{record.summary(prefix=RETRY_PREFIX).answered:,}",
            note="tries more under the same key",
        )
    )
    if record.placement:
        figures.append(Figure(name="pods", value=_pods(record), note="that host actors"))
    if busiest := busiest_process(record):
        note = f"cores at most, of {_processes(record)}"
        if busiest.cpu_cores >= BUSY_CORES:
            note = f"cores: {busiest.process} was near its one"
        figures.append(Figure(name="generator CPU", value=f"{busiest.cpu_cores:.2f}", note=note))
    return figures


def _of(record: Record, what: str) -> list[Figure]:
    seen, lasted = summary(record, what), words.lasted(record.ended - record.started)
    one = {TURN: "turn", CALL: "actor call"}[what]
    figures = [
        Figure(name=f"{of(what)}/s", value=words.rate(seen.rate), note=f"{seen.answered - seen.failed:,} in {lasted}"),
        *(
            Figure(name=f"p{percent:g} of {of(what)}", value=words.latency(seen.percentile_ms(percent)))
            for percent in PERCENTILES
        ),
        Figure(name=f"slowest {one}", value=words.latency(seen.slowest_ms)),
        Figure(
            name=f"failed {of(what)}",
            value=f"{seen.failed:,}",
            note=words.percent(seen.error_rate) if seen.failed else "",
        ),
    ]
    if what == TURN and record.due:
        due = sum(second.answered for second in record.due)
        rate = due / seen.duration if seen.duration else 0.0
        figures.insert(1, Figure(name="turns due/s", value=words.rate(rate), note="offered; in a closed loop: sent"))
    return figures


def by_phase(record: Record) -> list[list[str]]:
    """For :data:`PHASE_COLUMNS`: the whole run and each of its phases; empty where nothing tells them apart."""
    names = phases_of(record)
    if len(names) < 2:
        return []
    rows = []
    for what in present(record):
        for phase in (None, *names):
            seen = summary(record, what, phase)
            if seen.answered:
                due = words.rate(seen.answered / seen.duration) if what == TURN and seen.duration else "-"
                rows.append(
                    [
                        of(what),
                        phase or "the whole run",
                        words.lasted(seen.duration),
                        due,
                        words.rate(seen.rate),
                        words.failed(seen),
                        *(words.latency(seen.percentile_ms(percent)) for percent in PERCENTILES),
                        words.latency(seen.slowest_ms),
                    ]
                )
    return rows


def warnings(record: Record) -> list[str]:
    """What makes the figures worth less, a sentence each."""
    found = []
    # Python starts up, and users with it: one sample over the mark says little.
    busy: dict[str, int] = defaultdict(int)
    for sample in record.generator:
        busy[sample.process] += sample.cpu_cores >= BUSY_CORES
    if names := [name for name, samples in busy.items() if samples > 1]:
        found.append(
            f"The load generator was near a core in {', '.join(names)}: latencies there include its own waiting. "
            "Run it with more workers."
        )
    for name, samples in pods.seen(record).items():
        if again := samples[-1][1].restarts - samples[0][1].restarts:
            times = "once" if again == 1 else f"{again} times"
            found.append(f"A container of {name} restarted {times} during the run: its last log says why.")
    found += _throttled(record)
    problems = [problem for sample in record.placement for problem in sample.problems]
    if problems:
        times = "once" if len(problems) == 1 else f"{len(problems)} times"
        found.append(f"The cluster did not answer {times}, and the placement view has gaps. The first: {problems[0]}")
    return found


def _throttled(record: Record) -> list[str]:
    """A line for each container name that its CPU limit has slowed down; none where that is not known."""
    shares: dict[str, list[float]] = defaultdict(list)
    limits: dict[str, set[float]] = defaultdict(set)
    for sample in record.placement:
        for pod in sample.pods:
            for name, container in pod.containers.items():
                if container.throttled is not None and container.cpu_limit is not None:
                    shares[name].append(container.throttled)
                    limits[name].add(container.cpu_limit)
    return [
        f"{name} was stopped by its CPU limit ({', '.join(f'{limit:g}' for limit in sorted(limits[name]))} cores) in "
        f"{words.percent(mean)} of its periods ({words.percent(max(found))} at most): latencies include that."
        for name, found in shares.items()
        if (mean := sum(found) / len(found)) > THROTTLED
    ]


def busiest_process(record: Record) -> GeneratorSample | None:
    """The sample with the most CPU; ``None`` where there is none."""
    return max(record.generator, key=lambda sample: sample.cpu_cores, default=None)


def failed_checks(record: Record) -> list[str]:
    """A line for each check that did not hold, as ``p95 412 ms is above 300 ms``."""
    return [
        *(line(check) for check in record.checks if not check.passed),
        *(
            f"{section.title}: {line(check)}"
            for section in record.sections
            for check in section.checks
            if not check.passed
        ),
    ]


def line(check: Check) -> str:
    """What was measured; with the name of the check before it where it does not name itself."""
    return check.detail if check.detail.startswith(check.name) else f"{check.name}: {check.detail}"


def verdict(record: Record) -> str:
    """``PASSED 4 of 4 checks``, ``FAILED 1 of 4 checks``, or that nothing was asked."""
    checks = record.all_checks
    if not checks:
        return "PASSED nothing was checked"
    failed = sum(not check.passed for check in checks)
    plural = "check" if len(checks) == 1 else "checks"
    return f"FAILED {failed} of {len(checks)} {plural}" if failed else f"PASSED {len(checks)} of {len(checks)} {plural}"


def _knee(record: Record) -> list[Figure]:
    if not (knee := record.knee):
        return []
    note = f"within bounds, with {words.counted(knee.users, 'user')}, p95 {words.latency(knee.p95_ms)}"
    return [Figure(name="knee", value=f"{words.rate(knee.rate)}/s", note=note)]


def _pods(record: Record) -> str:
    """How many hosts placement had, one after the other: ``1 → 3 → 6 → 2``."""
    counts = [count for count, _ in groupby(len(sample.hosts) for sample in record.placement)]
    return " → ".join(map(str, counts)) if len(counts) <= 6 else f"{min(counts)} to {max(counts)}"


def _processes(record: Record) -> str:
    number = len({sample.process for sample in record.generator})
    return "one process" if number == 1 else f"{number} processes"
