"""Many actors activated at once."""

from actor_load.record import PlacementSample
from actor_load.scenarios.stage import Findings, Stage, Visit
from actor_load.words import latency, percent


def storm(stage: Stage) -> None:
    """The scenario: ``--storm-actors`` ids, none of them known to Dapr, are activated as fast as the visitors can."""
    count = stage.options.storm_actors
    stage.load(0)
    with stage.section(
        f"Activation storm of {count:,} actors",
        f"{count:,} ids that nobody has called before: each call activates an actor and reads its state.",
    ) as findings:
        before = stage.sample()
        visit = stage.visit(count)
        activations(findings, stage, visit, before, stage.sample_with_memory())


def activations(
    findings: Findings, stage: Stage, visit: Visit, before: PlacementSample, after: PlacementSample
) -> None:
    """What a storm found: rate, latency, memory of an actor, skew, and that each was activated once."""
    calls = stage.recorder.record.summary(visit.started, visit.ended, "BeginTurn")
    actor_type = stage.options.actor_type
    findings.figure("activations a second", f"{visit.rate:.0f}", f"{visit.rate / len(visit.table):.0f} for each pod")
    findings.figure(
        "p50, p99, slowest",
        ", ".join(latency(value) for value in (calls.percentile_ms(50), calls.percentile_ms(99), calls.slowest_ms)),
    )
    used = {part: _memory(after, part) - _memory(before, part) for part in ("app", "sidecar")}
    findings.figure(
        "memory of an active actor",
        f"{sum(used.values()) / visit.count / 1000:.1f} kB",
        ", ".join(f"{part} {value / visit.count / 1000:.1f} kB" for part, value in used.items())
        + ": what the pods grew by, shared out",
    )
    shares = visit.ring.shares()
    findings.table(
        "Where they live",
        ["pod", "actors", "share", "of the ring", "ideal", "active after it"],
        (
            [
                pod,
                f"{visit.found.hosts.get(pod, 0):,}",
                percent(visit.found.hosts.get(pod, 0) / visit.count),
                percent(shares[address]),
                percent(1 / len(visit.table)),
                _active(after, pod, actor_type),
            ]
            for address, pod in sorted(visit.table.items(), key=lambda item: item[1])
        ),
    )
    findings.check(
        "every actor was activated", visit.found.failed == 0, f"{visit.found.failed} of {visit.count:,} never answered"
    )
    findings.check(
        "every actor is where the ring says",
        visit.found.mismatched == 0,
        f"{visit.count - visit.found.mismatched:,} of {visit.count:,}",
    )


def _memory(sample: PlacementSample, part: str) -> int:
    return sum(
        container.memory_bytes or 0
        for pod in sample.pods
        for name, container in pod.containers.items()
        if (name == "daprd") == (part == "sidecar")
    )


def _active(sample: PlacementSample, pod: str, actor_type: str) -> str:
    active = next((each.active_actors for each in sample.pods if each.name == pod), None)
    return "?" if active is None else f"{active.get(actor_type, 0):,}"
