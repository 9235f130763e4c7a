"""One part after the other fails while people chat: what that costs them."""

from typing import Final

from actor_load.cluster import NodeJob, PodGroup, disturb
from actor_load.errors import LoadError
from actor_load.faults import FAULTS, CutOff, Delete, Fault, Freeze, Kill, ModelFails, OnNode, Which
from actor_load.options import Options
from actor_load.scenarios.stage import SETTLE_SECONDS, Change, Stage
from actor_load.scenarios.visiting import activate
from actor_load.words import counted

REST_SECONDS: Final = 8.0
JOB_SECONDS: Final = 60.0
"""Until a Job on a node has started, and after it has done its work."""


def faults(stage: Stage) -> None:
    """The scenario: those of ``--faults``, or all, one after the other."""
    names = stage.options.fault_names or _possible(stage.options)
    pods = len(stage.sample().pods)
    activate(stage)
    stage.load(stage.users)
    with stage.section(
        "Faults",
        f"{stage.users} streams of turns through {counted(len(names), 'fault')}, one after the other; Kubernetes makes "
        "new what has ended.",
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
    """Names of the faults that this cluster can have."""
    return [name for name, fault in FAULTS.items() if _can_happen(options, fault)]


def _can_happen(options: Options, fault: Fault) -> bool:
    """Not where placement has one pod, of which none follows, where the model is another, or for want of rights."""
    if isinstance(fault.how, OnNode) and not options.node_faults:
        return False
    if isinstance(fault.how, ModelFails):
        return bool(_pods(options, fault).ready())
    return fault.which is not Which.FOLLOWER or len(_pods(options, fault).ready()) > 1


def _pods(options: Options, fault: Fault) -> PodGroup:
    namespace = options.dapr_namespace if fault.of_dapr else options.namespace
    return PodGroup(options, namespace, fault.labels.format(deployment=options.deployment))


def _happens(stage: Stage, fault: Fault, pods: int) -> Change:
    group = _pods(stage.options, fault)
    before = group.ready()
    if not before:
        raise LoadError(f"{fault.text}: no pod with {group.selector} is ready in namespace {group.namespace}")
    victims = _victims(stage, fault, before)
    how = fault.how
    if isinstance(how, Delete):
        return stage.change(
            fault.text,
            lambda: _delete(stage, group, how, victims, len(before)),
            pods,
            gone=frozenset(victims.values()),
        )
    if isinstance(how, ModelFails):
        return stage.change(fault.text, lambda: _disturb(stage, group, how), pods)
    (victim,) = victims.values()
    return stage.change(fault.text, lambda: _on_node(stage, group, how, victim), pods)


def _delete(stage: Stage, group: PodGroup, how: Delete, victims: dict[str, str], count: int) -> None:
    def is_back() -> bool:
        ready = group.ready()
        return len(ready) >= count and not ready.keys() & victims.keys()

    for name in victims.values():
        group.delete(name, how.grace_seconds)
    stage.wait(is_back, SETTLE_SECONDS, f"new pods with {group.selector}")


def _disturb(stage: Stage, group: PodGroup, how: ModelFails) -> None:
    for address in group.addresses():
        disturb(address, how.kind, how.seconds)
    stage.sleep(how.seconds)


def _on_node(stage: Stage, group: PodGroup, how: OnNode, victim: str) -> None:
    container = "" if isinstance(how, CutOff) else how.container
    before = group.container(victim, container)
    if before is None:
        raise LoadError(f"pod {victim} is not ready any more, before anything was done to it")
    if not stage.options.node_faults:
        raise LoadError("--node-faults names no CronJob: charts/load-tests has it with nodeFaults.enabled=true")
    job = NodeJob(stage.options, before.node, _arguments(how, before.id))
    seconds = 0 if isinstance(how, Kill) else how.seconds
    stage.wait(
        job.is_done,
        seconds + JOB_SECONDS,
        f"a Job in namespace {stage.options.namespace}, whose pod needs the privileged Pod Security Standard there",
    )

    def goes_on() -> bool:
        now = group.container(victim, container)
        return now is not None and (not isinstance(how, Kill) or now != before)

    stage.wait(goes_on, SETTLE_SECONDS, f"pod {victim} to be ready again")


def _arguments(how: OnNode, container_id: str) -> list[str]:
    """For :mod:`actor_load.node_faults`."""
    match how:
        case Kill():
            return ["kill", container_id]
        case Freeze(seconds=seconds):
            return ["freeze", container_id, f"--seconds={seconds}"]
        case CutOff(port, seconds):
            return ["cut-off", container_id, f"--port={port}", f"--seconds={seconds}"]


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
