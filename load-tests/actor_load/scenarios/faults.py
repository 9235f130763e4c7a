"""One part after the other fails while people chat: what that costs them."""

from typing import Final

from actor_load.cluster import PodGroup
from actor_load.errors import LoadError
from actor_load.faults import FAULTS, Fault, Which
from actor_load.options import Options
from actor_load.scenarios.stage import SETTLE_SECONDS, Change, Stage
from actor_load.words import counted

REST_SECONDS: Final = 8.0


def faults(stage: Stage) -> None:
    """The scenario: those of ``--faults``, or all, one after the other."""
    names = stage.options.fault_names or _possible(stage.options)
    pods = len(stage.sample().pods)
    stage.load(stage.users)
    with stage.section(
        "Faults",
        f"{stage.users} streams of turns through {counted(len(names), 'fault')}, one after the other; Kubernetes makes "
        "new pods.",
    ) as findings:
        changes: list[Change] = []
        try:
            for name in names:
                stage.sleep(REST_SECONDS)
                changes.append(_happens(stage, FAULTS[name], pods))
            stage.finish_turns()
        finally:
            findings.costs(stage.costs(changes))


def _possible(options: Options) -> list[str]:
    """Names of the faults that this cluster has pods for: where placement has one pod, there is no follower."""
    return [
        name
        for name, fault in FAULTS.items()
        if fault.which is not Which.FOLLOWER or len(_pods(options, fault).ready()) > 1
    ]


def _pods(options: Options, fault: Fault) -> PodGroup:
    namespace = options.dapr_namespace if fault.of_dapr else options.namespace
    return PodGroup(options, namespace, fault.labels.format(deployment=options.deployment))


def _happens(stage: Stage, fault: Fault, pods: int) -> Change:
    group = _pods(stage.options, fault)
    before = group.ready()
    if not before:
        raise LoadError(f"{fault.text}: no pod with {group.selector} is ready in namespace {group.namespace}")
    victims = _victims(stage, fault, before)

    def is_back() -> bool:
        ready = group.ready()
        return len(ready) >= len(before) and not ready.keys() & victims.keys()

    def take_away() -> None:
        for name in victims.values():
            group.delete(name, fault.grace_seconds)
        stage.wait(is_back, SETTLE_SECONDS, f"new pods with {group.selector}")

    return stage.change(fault.text, take_away, pods, gone=frozenset(victims.values()))


def _victims(stage: Stage, fault: Fault, ready: dict[str, str]) -> dict[str, str]:
    """Those that the fault takes away; uid -> name, as ``ready``."""
    if fault.which is Which.ALL:
        return ready
    found = ready
    if fault.which is not Which.FIRST:
        leader, leads = _leader(stage), fault.which is Which.LEADER
        found = {uid: name for uid, name in ready.items() if (name == leader) is leads}
    if not found:
        raise LoadError(
            f"{fault.text}: there is none among {', '.join(ready.values())}; leave the fault out, or install Dapr with "
            "three placements, as charts/dapr/values-ha.yaml does"
        )
    return dict([next(iter(found.items()))])


def _leader(stage: Stage) -> str:
    """Name of the placement pod that leads, as soon as one does."""
    leader = ""

    def one_leads() -> bool:
        nonlocal leader
        leader = stage.sample().leader
        return bool(leader)

    stage.wait(one_leads, SETTLE_SECONDS, "a leader of placement")
    return leader
