"""Rounds of visits in a scenario: actors that are active, and what the rounds say about placement."""

from typing import Final

from actor_load.scenarios.stage import Findings, Stage, Visit
from actor_load.words import percent

COLUMNS: Final = ["pods", "actors", "where the ring says", "most on one pod", "ideal", "moved", "moved by the ring"]


def activate(stage: Stage) -> None:
    """Has ``--active-actors`` active, before people chat. They stay so for chat-service's idle time-out."""
    if count := stage.options.active_actors:
        stage.visit(count)


def moves(findings: Findings, visits: list[Visit]) -> None:
    """Each visit against the ring, and what moved since the one before."""
    rows = []
    for number, visit in enumerate(visits):
        moved, expected = (visit.found.moved, visit.found.moved_by_ring) if number else (None, None)
        rows.append(
            [
                str(len(visit.table)),
                f"{visit.count:,}",
                percent(1 - visit.found.mismatched / visit.count),
                percent(max(visit.found.hosts.values(), default=0) / visit.count),
                percent(1 / len(visit.table)),
                "-" if moved is None else f"{moved:,} ({percent(moved / visit.count)})",
                "-" if expected is None else f"{expected:,} ({percent(expected / visit.count)})",
            ]
        )
    findings.table("Where actors are, and what moved", COLUMNS, rows)
    asked = sum(visit.count for visit in visits)
    right = asked - sum(visit.found.mismatched for visit in visits)
    findings.figure("actors where the ring says", percent(right / asked) if asked else "-", f"of {asked:,} asked")
    findings.check("every actor is where the ring says", 0 < asked == right, f"{right:,} of {asked:,}")
    changed = [visit.found for visit in visits[1:]]
    findings.check(
        "as many actors moved as the ring says",
        all(found.moved == found.moved_by_ring for found in changed),
        ", ".join(f"{found.moved:,} of {found.moved_by_ring:,}" for found in changed) or "nothing changed",
    )
