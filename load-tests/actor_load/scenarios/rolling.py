"""A rolling update of the hosts while people chat."""

from typing import Final

from actor_load.scenarios.stage import Stage
from actor_load.scenarios.visiting import activate, moves

VISITED: Final = 1000
REST_SECONDS: Final = 10.0


def rolling(stage: Stage) -> None:
    """The scenario: every pod is replaced, as `kubectl rollout restart` does."""
    pods = len(stage.sample().pods)
    activate(stage)
    stage.load(stage.users)
    with stage.section(
        "Rolling update",
        f"{stage.users} streams of turns while every pod ({pods}) is replaced by a new one.",
    ) as findings:
        stage.sleep(REST_SECONDS)
        visits = [stage.visit(VISITED)]
        old = frozenset(pod.name for pod in stage.sample().pods)
        change = stage.change("rolling update", stage.deployment.restart, pods, gone=old)
        visits.append(stage.visit(VISITED))
        moves(findings, visits)
        stage.sleep(REST_SECONDS)
        stage.finish_turns()
        findings.costs(stage.costs([change]))
