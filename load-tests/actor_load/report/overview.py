"""What the whole run comes to, in a row of figures: the page, the picture and the terminal begin with it."""

from collections import defaultdict
from itertools import groupby
from typing import Final

from actor_load import words
from actor_load.record import RETRY_PREFIX, TURN_PREFIX, Check, Figure, GeneratorSample, Record, Summary
from actor_load.report import pods

BUSY_CORES: Final = 0.85
"""A process of Locust is one thread: above this its own waiting is part of the latencies that it measures."""


def headline(record: Record) -> list[Figure]:
    """The knee, where it was looked for; rate, latencies, failures, retries, pods, generator. Retries are no requests
    of their own."""
    everything = record.summary()
    turns = record.summary(prefix=TURN_PREFIX)
    name = "turns/s" if turns.answered == everything.answered else "requests/s"
    figures = [
        *_knee(record),
        Figure(
            name=name,
            value=words.rate(_rate(record, everything)),
            note=f"{everything.answered - everything.failed:,} in {words.lasted(record.ended - record.started)}",
        ),
    ]
    if turns.answered and turns.answered != everything.answered:
        figures.append(Figure(name="turns/s", value=words.rate(_rate(record, turns)), note="of these"))
    figures += [
        Figure(name=f"p{percent}", value=words.latency(everything.percentile_ms(percent))) for percent in (50, 95, 99)
    ]
    figures += [
        Figure(name="slowest", value=words.latency(everything.slowest_ms)),
        Figure(
            name="failed",
            value=f"{everything.failed:,}",
            note=words.percent(everything.error_rate) if everything.failed else "",
        ),
        Figure(
            name="retried",
            value=f"{record.summary(prefix=RETRY_PREFIX).answered:,}",
            note="tries more under the same key",
        ),
    ]
    if record.placement:
        figures.append(Figure(name="pods", value=_pods(record), note="that host actors"))
    if busiest := busiest_process(record):
        note = f"cores at most, of {_processes(record)}"
        if busiest.cpu_cores >= BUSY_CORES:
            note = f"cores: {busiest.process} was near its one"
        figures.append(Figure(name="generator CPU", value=f"{busiest.cpu_cores:.2f}", note=note))
    return figures


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
    problems = [problem for sample in record.placement for problem in sample.problems]
    if problems:
        times = "once" if len(problems) == 1 else f"{len(problems)} times"
        found.append(f"The cluster did not answer {times}, and the placement view has gaps. The first: {problems[0]}")
    return found


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


def _rate(record: Record, summary: Summary) -> float:
    """As the threshold of the rate has it: over the whole length of the run."""
    seconds = record.ended - record.started
    return (summary.answered - summary.failed) / seconds if seconds > 0 else 0.0


def _pods(record: Record) -> str:
    """How many hosts placement had, one after the other: ``1 → 3 → 6 → 2``."""
    counts = [count for count, _ in groupby(len(sample.hosts) for sample in record.placement)]
    return " → ".join(map(str, counts)) if len(counts) <= 6 else f"{min(counts)} to {max(counts)}"


def _processes(record: Record) -> str:
    number = len({sample.process for sample in record.generator})
    return "one process" if number == 1 else f"{number} processes"
