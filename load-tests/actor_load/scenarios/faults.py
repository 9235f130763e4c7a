"""One part after the other fails while people chat: what that costs them."""

from dataclasses import dataclass
from typing import Final

from actor_load.cluster import PodGroup
from actor_load.errors import LoadError
from actor_load.options import Options
from actor_load.scenarios.stage import SETTLE_SECONDS, Change, Stage
from actor_load.words import counted

REST_SECONDS: Final = 8.0
KILLED: Final = 0
"""Seconds of grace: what `kubectl delete --force --grace-period=0` asks for."""


@dataclass(frozen=True)
class Fault:
    """Pods that are taken away; Kubernetes makes new ones."""

    text: str
    """What happens, in the report."""
    selector: str
    """Labels of the part's pods."""
    of_dapr: bool = False
    """The part belongs to Dapr's control plane."""
    every: bool = False
    """All its pods at once, not only the first by name."""
    grace_seconds: int | None = KILLED
    """``None``: the pod's own."""


def known(options: Options) -> dict[str, Fault]:
    """``--faults`` takes these names."""
    chat = f"app.kubernetes.io/name={options.deployment}"
    memory = "app.kubernetes.io/name=agent-memory-service"
    placement = "app=dapr-placement-server"
    return {
        "chat-deleted": Fault("a chat pod is deleted", chat, grace_seconds=None),
        "chat-killed": Fault("a chat pod is killed", chat),
        "chats-killed": Fault("all chat pods are killed at once", chat, every=True),
        "memory-deleted": Fault("a pod of the memory service is deleted", memory, grace_seconds=None),
        "memory-killed": Fault("a pod of the memory service is killed", memory),
        "redis-killed": Fault("Redis is killed", "app.kubernetes.io/name=redis"),
        "placement-deleted": Fault("a placement pod is deleted", placement, of_dapr=True, grace_seconds=None),
        "placement-killed": Fault("a placement pod is killed", placement, of_dapr=True),
        "scheduler-killed": Fault("a scheduler pod is killed", "app=dapr-scheduler-server", of_dapr=True),
        "sentry-killed": Fault("a sentry pod is killed", "app=dapr-sentry", of_dapr=True),
        "operator-killed": Fault("an operator pod is killed", "app=dapr-operator", of_dapr=True),
        "injector-killed": Fault("an injector pod is killed", "app=dapr-sidecar-injector", of_dapr=True),
    }


def faults(stage: Stage) -> None:
    """The scenario: those of ``--faults``, or all, one after the other."""
    faults = known(stage.options)
    names = stage.options.fault_names or list(faults)
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
                changes.append(_happens(stage, faults[name], pods))
            stage.finish_turns()
        finally:
            findings.costs(stage.costs(changes))


def _happens(stage: Stage, fault: Fault, pods: int) -> Change:
    options = stage.options
    namespace = options.dapr_namespace if fault.of_dapr else options.namespace
    group = PodGroup(options, namespace, fault.selector)
    before = group.ready()
    if not before:
        raise LoadError(f"{fault.text}: no pod with {fault.selector} is ready in namespace {namespace}")
    victims = before if fault.every else dict([next(iter(before.items()))])

    def is_back() -> bool:
        ready = group.ready()
        return len(ready) >= len(before) and not ready.keys() & victims.keys()

    def take_away() -> None:
        for name in victims.values():
            group.delete(name, fault.grace_seconds)
        stage.wait(is_back, SETTLE_SECONDS, f"new pods with {fault.selector}")

    return stage.change(fault.text, take_away, pods, gone=frozenset(victims.values()))
