"""What the offline model is told by its environment; charts/daca sets each of these from a value."""

from typing import Annotated

from daca_common.settings import ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """The defaults answer at once and never fail."""

    port: int = Field(8002, ge=1, le=65535)
    latency_ms: Annotated[float, Field(ge=0, le=600_000)] = 0.0
    """How long a completion takes; the length of the answer makes no difference."""
    error_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of completions that fail with a 500, spread evenly: at 0.25 every fourth request to this process."""
