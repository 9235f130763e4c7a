"""Where actors live, against where a simulation of Dapr's ring says they live."""

from itertools import pairwise
from typing import Final

from actor_load.scenarios.stage import Stage
from actor_load.scenarios.visiting import moves

PODS: Final = [1, 2, 3, 4, 5, 6]


def ring(stage: Stage) -> None:
    """The scenario: ``--actors`` ids are looked up on each of ``--pods``, 1 to 6 without it."""
    counts = stage.options.pod_counts or PODS
    actors = stage.options.actors
    stage.prepare(counts[0])
    stage.load(0)
    with stage.section(
        f"The ring on {', '.join(map(str, counts))} pods",
        f"On each number of pods {actors:,} actors say where they are; the simulated ring names a host for each id.",
    ) as findings:
        visits = [stage.visit(actors)]
        try:
            for before, after in pairwise(counts):
                stage.scale(before, after)
                visits.append(stage.visit(actors))
        finally:
            moves(findings, visits)
