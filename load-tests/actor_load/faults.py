"""The faults that ``--faults`` takes by name: which pods are taken away, and how."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

KILLED: Final = 0
"""Seconds of grace: what `kubectl delete --force --grace-period=0` asks for."""


class Which(Enum):
    """Which of a part's pods that are ready."""

    FIRST = auto()
    """The first by name."""
    ALL = auto()
    """All at once."""
    LEADER = auto()
    """Of placement: the one that has the table."""
    FOLLOWER = auto()
    """Of placement: the first by name that does not lead. There is none where placement has one pod."""


@dataclass(frozen=True)
class Fault:
    """Pods that are taken away; Kubernetes makes new ones."""

    text: str
    """What happens, in the report."""
    labels: str
    """Of the part's pods, as `kubectl -l` takes them; ``{deployment}`` stands for ``--deployment``."""
    of_dapr: bool = False
    """The part belongs to Dapr's control plane."""
    which: Which = Which.FIRST
    grace_seconds: int | None = KILLED
    """``None``: the pod's own."""


_CHAT: Final = "app.kubernetes.io/name={deployment}"
_MEMORY: Final = "app.kubernetes.io/name=agent-memory-service"
_PLACEMENT: Final = "app=dapr-placement-server"
_LEADER: Final = "the placement pod that leads"
_FOLLOWER: Final = "a placement pod that follows"

FAULTS: Final = {
    "chat-deleted": Fault("a chat pod is deleted", _CHAT, grace_seconds=None),
    "chat-killed": Fault("a chat pod is killed", _CHAT),
    "chats-killed": Fault("all chat pods are killed at once", _CHAT, which=Which.ALL),
    "memory-deleted": Fault("a pod of the memory service is deleted", _MEMORY, grace_seconds=None),
    "memory-killed": Fault("a pod of the memory service is killed", _MEMORY),
    "redis-killed": Fault("Redis is killed", "app.kubernetes.io/name=redis"),
    "placement-deleted": Fault(f"{_LEADER} is deleted", _PLACEMENT, True, Which.LEADER, None),
    "placement-killed": Fault(f"{_LEADER} is killed", _PLACEMENT, True, Which.LEADER),
    "placement-follower-deleted": Fault(f"{_FOLLOWER} is deleted", _PLACEMENT, True, Which.FOLLOWER, None),
    "placement-follower-killed": Fault(f"{_FOLLOWER} is killed", _PLACEMENT, True, Which.FOLLOWER),
    "scheduler-killed": Fault("a scheduler pod is killed", "app=dapr-scheduler-server", of_dapr=True),
    "sentry-killed": Fault("a sentry pod is killed", "app=dapr-sentry", of_dapr=True),
    "operator-killed": Fault("an operator pod is killed", "app=dapr-operator", of_dapr=True),
    "injector-killed": Fault("an injector pod is killed", "app=dapr-sidecar-injector", of_dapr=True),
}
"""By the names that ``--faults`` takes."""
