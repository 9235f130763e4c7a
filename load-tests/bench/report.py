"""What came of a run: ratios to the peer in the same round, their spread, as tables and as JSON."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final, Self

from rich.console import Console

from bench.run import Step
from bench.systems import PEER
from cluster import screen

SHOWN_MS: Final = 0.005


@dataclass(frozen=True)
class Spread:
    """One figure of several rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Self:
        """The spread of at least one figure."""
        found = list(figures)
        return cls(median(found), min(found), max(found))

    def __str__(self) -> str:
        """The median, and from where to where it went."""
        return f"{_short(self.median)} ({_short(self.least)}..{_short(self.most)})"


@dataclass(frozen=True)
class Summary:
    """One system at one number of clients, over all rounds."""

    system: str
    clients: int
    turns_per_second: Spread
    to_peer: Spread | None
    """Its turns a second to those of the peer, round by round; ``None`` without a peer."""
    p50_ms: Spread
    p99_ms: Spread
    first_token_ms: Spread | None
    cpu_ms: Spread
    """Milliseconds of CPU a turn, of all its processes."""
    by_process: Mapping[str, float]
    """The same by process, in the middle of the rounds; most first."""
    elsewhere: float
    failed: int


def summaries(steps: Sequence[Step]) -> Iterator[Summary]:
    """By system and clients, in the order in which they were measured."""
    peer = {(step.round, step.clients): step.load.turns_per_second for step in steps if step.system == PEER}
    for system, clients in dict.fromkeys((step.system, step.clients) for step in steps):
        same = [step for step in steps if (step.system, step.clients) == (system, clients)]
        ratios = [
            step.load.turns_per_second / beside
            for step in same
            if (beside := peer.get((step.round, clients))) and system != PEER
        ]
        names = {name for step in same for name in step.cpu_ms}
        by_process = {name: median(step.cpu_ms.get(name, 0.0) for step in same) for name in names}
        yield Summary(
            system,
            clients,
            Spread.of(step.load.turns_per_second for step in same),
            Spread.of(ratios) if ratios else None,
            Spread.of(step.load.p50_ms for step in same),
            Spread.of(step.load.p99_ms for step in same),
            Spread.of(told) if (told := [step.first_token_ms for step in same if step.first_token_ms]) else None,
            Spread.of(sum(step.cpu_ms.values()) for step in same),
            dict(sorted(by_process.items(), key=lambda item: -item[1])),
            median(step.elsewhere for step in same),
            sum(step.load.failed for step in same),
        )


def as_json(
    about: Mapping[str, Any], steps: Sequence[Step], calls: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """All of it: what the run was, its summaries, and every step."""
    return {
        "about": about,
        "summaries": [asdict(summary) for summary in summaries(steps)],
        "calls_a_turn": calls,
        "steps": [asdict(step) | {"turns_per_second": step.load.turns_per_second} for step in steps],
    }


def show(console: Console, steps: Sequence[Step], calls: Mapping[str, Mapping[str, float]]) -> None:
    """The tables, and below them what must not be overlooked."""
    found = list(summaries(steps))
    if found:
        _show_speed(console, found)
        for clients in dict.fromkeys(summary.clients for summary in found):
            _show_cpu(console, [summary for summary in found if summary.clients == clients])
    for system, asked in calls.items():
        shown = screen.table(f"{system}: what a turn asks for", "", "a turn")
        for what, number in asked.items():
            shown.add_row(what, f"{number:g}")
        console.print(shown)
    for summary in found:
        if summary.failed:
            console.print(
                f"FAILED: {summary.failed} turns of {summary.system} at {summary.clients} clients were not answered "
                "with 200: its figures are no figures"
            )


def _show_speed(console: Console, found: Sequence[Summary]) -> None:
    shown = screen.table(
        "Turns: median (least..most) of the rounds",
        *(
            "system",
            "clients",
            "turns/s",
            f"to {PEER}",
            "p50 ms",
            "p99 ms",
            "first token ms",
            "CPU ms a turn",
            "elsewhere",
        ),
    )
    for one in found:
        figures = (
            one.turns_per_second,
            one.to_peer or "",
            one.p50_ms,
            one.p99_ms,
            one.first_token_ms or "",
            one.cpu_ms,
        )
        shown.add_row(one.system, str(one.clients), *map(str, figures), f"{one.elsewhere:.2f}")
    console.print(shown)
    console.print("elsewhere: cores that were busy with neither the system nor its load, which disturbs the figures\n")


def _show_cpu(console: Console, found: Sequence[Summary]) -> None:
    shown = screen.table("CPU ms a turn", f"{found[0].clients} clients", *(one.system for one in found))
    names = {name: max(one.by_process.get(name, 0.0) for one in found) for one in found for name in one.by_process}
    for name in sorted(names, key=lambda name: -names[name]):
        if names[name] >= SHOWN_MS:
            shown.add_row(name, *(f"{one.by_process[name]:.2f}" if name in one.by_process else "" for one in found))
    shown.add_row("sum", *(f"{one.cpu_ms.median:.2f}" for one in found), style="bold")
    console.print(shown)


def _short(figure: float) -> str:
    """With three digits that say something."""
    return f"{figure:.{0 if figure >= 100 else 1 if figure >= 10 else 2}f}"
