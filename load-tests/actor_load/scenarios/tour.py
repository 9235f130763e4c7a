"""Five minutes: what one pod holds, how actors spread, and what a scale-out costs the people chatting."""

from typing import Final

from actor_load.errors import LoadError
from actor_load.scenarios.stage import Change, Stage
from actor_load.scenarios.storm import activations
from actor_load.scenarios.visiting import moves
from actor_load.shapes import StepsToKnee

RAMP_SECONDS: Final = 90.0
STEP_SECONDS: Final = 8.0
STEP_USERS: Final = 10
MOST_USERS: Final = 400
ACTIVATED: Final = 5000
VISITED: Final = 1000
REST_SECONDS: Final = 8.0
LOAD_OF_KNEE: Final = 0.15
"""The share of what one pod holds that goes on while the pods change: they share the cores of the machine."""


def tour(stage: Stage) -> None:
    """The scenario of `make load`: ramp on one pod, a storm, scale 1 -> 3 -> 2."""
    stage.prepare(1)
    users = _turns(stage)
    _activations(stage)
    _scale_out(stage, max(1, round(users * LOAD_OF_KNEE)))


def _turns(stage: Stage) -> int:
    """How many turns a second one pod holds: streams of turns at the knee."""
    steps = StepsToKnee(
        users=MOST_USERS,
        run_time=RAMP_SECONDS,
        step_users=STEP_USERS,
        step_seconds=STEP_SECONDS,
        knee_p95=stage.options.knee_p95,
        knee_error_rate=stage.options.knee_error_rate,
        window=stage.recorder.window,
        event=stage.recorder.event,
    )
    with stage.section("Turns that one pod holds", "") as findings:
        stage.play(steps, RAMP_SECONDS)
        found = steps.section()
        if found is None or steps.knee is None:
            raise LoadError(f"one pod does not even hold {STEP_USERS} turns a second within bounds")
        findings.text, findings.figures, findings.tables = found.text, found.figures, found.tables
        findings.knee = found.knee
        return steps.knee.users


def _activations(stage: Stage) -> None:
    """How many activations a second one pod holds."""
    with stage.section(
        "What one pod holds: activations",
        f"{ACTIVATED:,} actors that nobody has called before are called once each.",
    ) as findings:
        before = stage.sample_with_memory()
        activations(findings, stage, stage.visit(ACTIVATED), before, stage.sample_with_memory())


def _scale_out(stage: Stage, users: int) -> None:
    """What a scale-out costs those who chat, and what moves."""
    rate = users * stage.options.arrival_rate
    with stage.section(
        "What a scale-out costs",
        f"{rate:.0f} turns a second, {LOAD_OF_KNEE:.0%} of what one pod holds, while it becomes three pods, then two.",
    ) as findings:
        stage.load(users)
        stage.sleep(REST_SECONDS)
        visits = [stage.visit(VISITED)]
        changes: list[Change] = []
        try:
            for before, after in ((1, 3), (3, 2)):
                changes.append(stage.scale(before, after))
                visits.append(stage.visit(VISITED))
                stage.sleep(REST_SECONDS)
            stage.finish_turns()
        finally:
            findings.costs(stage.costs(changes))
            moves(findings, visits)
