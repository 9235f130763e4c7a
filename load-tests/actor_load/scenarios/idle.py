"""Actors that fall idle, are deactivated, and are called again."""

from typing import Final

from actor_load.record import PlacementSample
from actor_load.scenarios.stage import Stage
from actor_load.scenarios.storm import activations

IDLE_TIMEOUT: Final = "ACTOR_IDLE_TIMEOUT_SECONDS"
SCAN_INTERVAL: Final = "ACTOR_SCAN_INTERVAL_SECONDS"
SCAN_SECONDS: Final = 5
"""Settings of chat-service; they come to Dapr when a pod starts, so changing them rolls the pods out."""


def idle(stage: Stage) -> None:
    """The scenario: ``--storm-actors`` are activated, left alone for ``--idle-seconds``, and activated again."""
    count, idle_seconds, actor_type = stage.options.storm_actors, stage.options.idle_seconds, stage.options.actor_type
    before = stage.sample()
    pods, old = len(before.pods), frozenset(pod.name for pod in before.pods)
    stage.recorder.event("action", f"idle time-out is {idle_seconds:.0f} s for now")
    if stage.deployment.set_environment({IDLE_TIMEOUT: f"{idle_seconds:g}", SCAN_INTERVAL: str(SCAN_SECONDS)}):
        stage.settle(pods, gone=old)
    stage.load(0)
    with stage.section(
        f"Idle time-out and re-activation of {count:,} actors",
        f"{count:,} actors are activated, none is called for {idle_seconds:.0f} s until all are deactivated, and then "
        "all are called again.",
    ) as findings:
        empty = stage.sample_with_memory()
        first = stage.visit(count)
        findings.figure("first activations a second", f"{first.rate:.0f}")
        stage.sample()  # what was seen before the visit says nothing
        looks = stage.recorder.record.placement
        most = max(_active(look, actor_type) or 0 for look in looks if look.at >= first.started)
        note = "" if most >= count else "the first were idle before the last were called: raise --idle-seconds"
        findings.figure("active at once", f"{most:,}", note)
        stage.wait(
            lambda: _active(looks[-1], actor_type) == 0,
            2 * idle_seconds + SCAN_SECONDS + 60 + count / 200,
            f"{count:,} idle actors to be deactivated",
        )
        deactivated = looks[-1].at
        stage.recorder.event("settled", "no actor is active")
        findings.figure(
            "all deactivated after",
            f"{deactivated - first.ended:.0f} s",
            f"of idleness; the time-out is {idle_seconds:.0f} s",
        )
        again = stage.visit(count)
        activations(findings, stage, again, empty, stage.sample_with_memory())
        findings.check(
            "every actor was activated anew",
            again.found.new_activations == count,
            f"{again.found.new_activations:,} of {count:,}",
        )


def _active(look: PlacementSample, actor_type: str) -> int | None:
    """Active actors on all pods; ``None`` where a sidecar did not say."""
    if any(pod.active_actors is None for pod in look.pods):
        return None
    return sum((pod.active_actors or {}).get(actor_type, 0) for pod in look.pods)
