"""The faults that ``--faults`` takes by name: what is done to which pods."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Literal

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
class Delete:
    """The pod is taken away; Kubernetes makes a new one."""

    grace_seconds: int | None = KILLED
    """``None``: the pod's own."""


@dataclass(frozen=True)
class Kill:
    """The processes of one container are killed, those of its neighbours go on; the kubelet starts it again."""

    container: str


@dataclass(frozen=True)
class Freeze:
    """The processes of one container are stopped, and go on later: it is there, and does not answer."""

    container: str
    seconds: int = 10


@dataclass(frozen=True)
class CutOff:
    """A packet filter in the pod's network drops what goes to a TCP port of other pods, and what comes from it."""

    port: int
    seconds: int = 10


@dataclass(frozen=True)
class ModelFails:
    """The offline model does what its ``POST /faults`` takes; then it is well again."""

    kind: Literal["hang", "refuse", "break"]
    seconds: int = 10


OnNode = Kill | Freeze | CutOff
"""What takes a pod with rights on the victim's node: `actor_load.node_faults`."""


@dataclass(frozen=True)
class Fault:
    """Something that happens to pods."""

    text: str
    """What happens, in the report."""
    labels: str
    """Of the part's pods, as `kubectl -l` takes them; ``{deployment}`` stands for ``--deployment``."""
    of_dapr: bool = False
    """The part belongs to Dapr's control plane."""
    which: Which = Which.FIRST
    how: Delete | OnNode | ModelFails = Delete()


_CHAT: Final = "app.kubernetes.io/name={deployment}"
_MEMORY: Final = "app.kubernetes.io/name=agent-memory-service"
_REDIS: Final = "app.kubernetes.io/name=redis"
_MODEL: Final = "app.kubernetes.io/name=offline-model"
_PLACEMENT: Final = "app=dapr-placement-server"
_LEADER: Final = "the placement pod that leads"
_FOLLOWER: Final = "a placement pod that follows"
_GRACEFULLY: Final = Delete(grace_seconds=None)

FAULTS: Final = {
    "chat-deleted": Fault("a chat pod is deleted", _CHAT, how=_GRACEFULLY),
    "chat-killed": Fault("a chat pod is killed", _CHAT),
    "chats-killed": Fault("all chat pods are killed at once", _CHAT, which=Which.ALL),
    "chat-app-killed": Fault("the app's container of a chat pod is killed", _CHAT, how=Kill("chat-service")),
    "chat-sidecar-killed": Fault("the sidecar of a chat pod is killed", _CHAT, how=Kill("daprd")),
    "chat-without-placement": Fault("a chat pod is cut off from placement for 10 s", _CHAT, how=CutOff(50005)),
    "chat-without-redis": Fault("a chat pod is cut off from Redis for 10 s", _CHAT, how=CutOff(6379)),
    "memory-deleted": Fault("a pod of the memory service is deleted", _MEMORY, how=_GRACEFULLY),
    "memory-killed": Fault("a pod of the memory service is killed", _MEMORY),
    "redis-killed": Fault("Redis is killed", _REDIS),
    "redis-hangs": Fault("Redis hangs for 10 s", _REDIS, how=Freeze("redis")),
    "model-hangs": Fault("the model hangs for 10 s", _MODEL, how=ModelFails("hang")),
    "model-refuses": Fault("the model answers 429 for 10 s", _MODEL, how=ModelFails("refuse")),
    "model-breaks-off": Fault("the model breaks off in its answers for 10 s", _MODEL, how=ModelFails("break")),
    "placement-deleted": Fault(f"{_LEADER} is deleted", _PLACEMENT, True, Which.LEADER, _GRACEFULLY),
    "placement-killed": Fault(f"{_LEADER} is killed", _PLACEMENT, True, Which.LEADER),
    "placement-follower-deleted": Fault(f"{_FOLLOWER} is deleted", _PLACEMENT, True, Which.FOLLOWER, _GRACEFULLY),
    "placement-follower-killed": Fault(f"{_FOLLOWER} is killed", _PLACEMENT, True, Which.FOLLOWER),
    "scheduler-killed": Fault("a scheduler pod is killed", "app=dapr-scheduler-server", of_dapr=True),
    "sentry-killed": Fault("a sentry pod is killed", "app=dapr-sentry", of_dapr=True),
    "operator-killed": Fault("an operator pod is killed", "app=dapr-operator", of_dapr=True),
    "injector-killed": Fault("an injector pod is killed", "app=dapr-sidecar-injector", of_dapr=True),
}
"""By the names that ``--faults`` takes."""
