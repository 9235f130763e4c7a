"""Scale the hosts of the actors up and down while people chat, and compare what moves with the ring."""

from itertools import pairwise
from typing import Final

from actor_load.scenarios.stage import Change, Stage
from actor_load.scenarios.visiting import activate, moves

PODS: Final = [1, 3, 6, 2]
VISITED: Final = 1000
"""Actors that are looked up after each step."""
REST_SECONDS: Final = 10.0


def scale(stage: Stage) -> None:
    """The scenario: through ``--pods``, 1, 3, 6 and 2 without it."""
    counts = stage.options.pod_counts or PODS
    stage.prepare(counts[0])
    activate(stage)
    stage.load(stage.users)
    with stage.section(
        "Scale " + " -> ".join(map(str, counts)),
        f"{stage.users} streams of turns while the number of pods changes. After each change {VISITED:,} actors say "
        "where they are, and the ring says where they should be.",
    ) as findings:
        stage.sleep(REST_SECONDS)
        visits = [stage.visit(VISITED)]
        changes: list[Change] = []
        try:
            for before, after in pairwise(counts):
                changes.append(stage.scale(before, after))
                visits.append(stage.visit(VISITED))
                stage.sleep(REST_SECONDS)
            stage.finish_turns()
        finally:
            findings.costs(stage.costs(changes))
            moves(findings, visits)
