"""What agent-memory-service is told by its environment; charts/daca sets each of these from a value."""

from typing import Annotated, Self

from daca_common.model import ModelSettings
from pydantic import Field, model_validator


class Settings(ModelSettings):
    """Every setting has a default that works beside a sidecar on this machine."""

    port: int = Field(8001, ge=1, le=65535)
    state_store: str = "statestore"

    summary_quiet_seconds: Annotated[float, Field(gt=0, le=3600)] = 5.0
    """A user's summary is rolled up when they have said nothing for so long."""
    summary_max_wait_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """How long somebody who does not stop talking waits for it."""
    summary_max_per_second: Annotated[float, Field(gt=0, le=1000)] = 5.0
    """Roll-ups share the model, and its rate limit, with the turns."""
    transcript_retention_seconds: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """The store forgets the turns of a transcript so long after they were written; 0: never. Of a page of turns, the
    last counts."""

    @model_validator(mode="after")
    def _the_wait_is_longer_than_the_quiet(self) -> Self:
        if self.summary_max_wait_seconds < self.summary_quiet_seconds:
            raise ValueError("SUMMARY_MAX_WAIT_SECONDS must not be less than SUMMARY_QUIET_SECONDS")
        return self
