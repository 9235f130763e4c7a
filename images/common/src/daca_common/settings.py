"""Settings from environment variables; a wrong one stops the process with one line that names it."""

import sys
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

S = TypeVar("S", bound=BaseSettings)


class ServiceSettings(BaseSettings):
    """What every service is told by its environment; a service adds its own in a subclass."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    host: str = ""
    """Where it listens; empty means every address of its pod, of IPv4 and of IPv6."""
    port: int = Field(8000, ge=1, le=65535)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    shutdown_grace_seconds: Annotated[float, Field(ge=0, le=600)] = 30.0
    """How long open requests may go on after SIGTERM."""


class DaprSettings(ServiceSettings):
    """For a service with a sidecar: the injector sets these variables itself."""

    dapr_http_port: int = Field(3500, ge=1, le=65535)
    dapr_api_token: str | None = None
    app_api_token: Annotated[str, Field(pattern="^[!-~]+$")] | None = None
    """What the sidecar shows in a header, so ASCII without white space."""


def load(settings: type[S]) -> S:
    """Reads ``settings`` from the environment.

    Raises:
        SystemExit: a value is wrong; its message names each variable and what it should be.
    """
    try:
        return settings()
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(str(part) for part in problem["loc"]).upper() or "environment"
            print(f"{name}: {problem['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
