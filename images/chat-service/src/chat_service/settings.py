"""What chat-service is told by its environment; charts/daca sets each of these from a value."""

import socket
from typing import Annotated, Literal

from daca_common.model import ModelSettings
from pydantic import Field

Seconds = Annotated[float, Field(gt=0)]


class Settings(ModelSettings):
    """Every setting has a default that works beside a sidecar on this machine."""

    port: int = Field(8010, ge=1, le=65535)
    cors_origins: tuple[str, ...] = ("http://localhost:3000",)
    pod_name: str = Field(default_factory=socket.gethostname)
    """What the actors call their host."""
    pod_ip: str = "127.0.0.1"
    """Where other pods reach this one."""
    state_store: str = "statestore"

    memory_app_id: str = "agent-memory-service"
    memory_timeout_seconds: Seconds = 2.0
    """After that a turn goes on with what is known of a new user."""

    pubsub_name: str = "pubsub"
    pubsub_topic: str = "conversations"

    turn_lease_seconds: Annotated[float, Field(ge=1, le=60)] = 5.0
    """How long a turn whose pod died holds up the next one."""
    turn_wait_seconds: Annotated[float, Field(ge=0, le=300)] = 30.0
    """How long a message waits for the user's turns before it; then 503."""
    turn_when_busy: Literal["wait", "reject", "interrupt"] = "wait"
    """``reject``: a second message of a user gets 409 at once. ``interrupt``: it ends the turn that is open."""
    turn_queue_limit: Annotated[int, Field(ge=1, le=1000)] = 64
    """Messages of one user that may wait; then 429."""
    turn_open_limit: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Turns that may be open or wait in this process; then 503."""
    turn_late_ms: Annotated[float, Field(ge=1, le=10_000)] = 25.0
    """How late the event loop may be before fewer turns are taken on than that."""
    turn_resume_seconds: Annotated[float, Field(ge=0, le=300)] = 5.0
    """How long a streamed turn with an Idempotency-Key goes on after its client broke off, so that it may resume."""
    turn_key_seconds: Annotated[int, Field(ge=60, le=2_592_000)] = 86_400
    """How long a retry under an Idempotency-Key gets its reply; later the key is refused."""
    session_retention_seconds: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """How long a session is kept after its last turn; 0: for ever."""
    model_context_tokens: Annotated[int, Field(ge=1000, le=10_000_000)] = 32_000
    """What the model takes of a conversation, estimated; the oldest exchanges are left out above it."""
    model_tools: bool = True
    """Off for a model that takes none: it is told the time in its instructions."""
    model_on_length: Literal["answer", "refuse"] = "answer"
    """A reply that was cut at its longest length is answered as it is, with ``finish_reason``, or refused."""
    model_on_content_filter: Literal["answer", "refuse"] = "refuse"
    """So is one that a filter of the model's server has cut."""

    actor_idle_timeout_seconds: Seconds = 3600.0
    actor_scan_interval_seconds: Seconds = 30.0
    actor_drain_timeout_ms: Annotated[int, Field(ge=1, le=7000)] = 200
    """Above some 8 s placement gives the sidecar up in the middle of a round."""
    actor_drain_rebalanced: bool = True
    actor_reentrancy: bool = False
    """On, Dapr loses writes of reminders (dapr#10532)."""
