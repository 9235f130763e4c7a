"""The model: any server of the OpenAI chat API, chosen by ``MODEL_PROVIDER``.

A provider's key comes from the Dapr secret store. It is asked for when first needed and again for as long as it is
missing, so a secret that is made later needs no restart.
"""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from openai import AsyncOpenAI, DefaultAioHttpClient
from pydantic import Field, model_validator

from daca_common.dapr import DaprClient, DaprError, DaprUnavailable
from daca_common.settings import DaprSettings


@dataclass(frozen=True)
class Provider:
    """Where a provider is reached, what it is asked for, and whether it wants a key."""

    base_url: str
    model: str | None
    """The model asked for by default; ``None`` where the choice is the user's."""
    needs_key: bool


PROVIDERS = {
    "offline": Provider("http://offline-model:8002/v1", "offline", needs_key=False),
    # An alias that Google moves along: named versions retire within a year (gemini-1.5-flash is gone).
    "gemini": Provider(
        "https://generativelanguage.googleapis.com/v1beta/openai/", "gemini-flash-latest", needs_key=True
    ),
    "openai": Provider("https://api.openai.com/v1", "gpt-5-mini", needs_key=True),
    "ollama": Provider("http://ollama:11434/v1", "llama3.2", needs_key=False),
    "vllm": Provider("http://vllm:8000/v1", None, needs_key=False),
}


class ModelSettings(DaprSettings):
    """Which model answers, for how long it may take, and where its key is."""

    model_provider: Literal["offline", "gemini", "openai", "ollama", "vllm"] = "offline"
    model_name: str = ""
    """Empty: the provider's default."""
    model_base_url: str = ""
    """Empty: the provider's default."""
    model_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    secret_store: str = "secretstore"  # noqa: S105 - a name, not a secret
    model_secret_name: str = "gemini-api-key"  # noqa: S105
    model_secret_key: str = "gemini-api-key"  # noqa: S105

    @model_validator(mode="after")
    def _model_is_named(self) -> Self:
        if not self.model:
            raise ValueError(f"MODEL_NAME must be set: provider {self.model_provider!r} serves what you loaded into it")
        return self

    @property
    def model(self) -> str:
        """The model's name as the provider knows it."""
        return self.model_name or PROVIDERS[self.model_provider].model or ""

    @property
    def base_url(self) -> str:
        """Where the provider's chat API is."""
        return self.model_base_url or PROVIDERS[self.model_provider].base_url


class ModelKeyMissing(Exception):
    """The provider wants a key and the secret store has none; the message names the secret and the mend."""


class ModelClient:
    """One pooled OpenAI client, made when it is first asked for."""

    def __init__(self, settings: ModelSettings, dapr: DaprClient) -> None:
        self._settings = settings
        self._dapr = dapr
        self._client: AsyncOpenAI | None = None
        self._making = asyncio.Lock()

    async def get(self) -> AsyncOpenAI:
        """The client.

        Raises:
            ModelKeyMissing: the provider wants a key and there is none yet.
        """
        if self._client is None:
            async with self._making:
                if self._client is None:
                    self._client = AsyncOpenAI(
                        api_key=await self._key(),
                        base_url=self._settings.base_url,
                        timeout=self._settings.model_timeout_seconds,
                        max_retries=0,  # the turn decides what is tried again
                        http_client=DefaultAioHttpClient(),
                    )
        return self._client

    async def close(self) -> None:
        """Closes the pooled connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _key(self) -> str:
        settings = self._settings
        if not PROVIDERS[settings.model_provider].needs_key:
            return "none"  # the client insists on one; these servers ignore it
        store, name, key = settings.secret_store, settings.model_secret_name, settings.model_secret_key
        missing = (
            f"Provider {settings.model_provider!r} needs an API key: make a secret {name!r} with the key {key!r} "
            f"in the secret store {store!r} (k8s-secrets/README.md says how)."
        )
        try:
            secret = await self._dapr.get_secret(store, name)
        except DaprError as error:
            raise ModelKeyMissing(f"{missing} The store said: {error.message}") from error
        except DaprUnavailable as error:
            raise ModelKeyMissing(f"{missing} The sidecar did not answer: {error}") from error
        if not secret.get(key):
            raise ModelKeyMissing(missing)
        return secret[key]
