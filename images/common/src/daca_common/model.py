"""The model: any server of the OpenAI chat API, chosen by ``MODEL_PROVIDER``.

:meth:`ModelClient.complete` is the one edge to that foreign server: it returns an answer that can be used, or raises
:class:`ModelFailed`, whatever the server sends or does.

A provider's key comes from the Dapr secret store. It is asked for when first needed, again for as long as it is
missing, when the server refuses it, and every few minutes: a secret that is made or changed later needs no restart.
"""

import asyncio
import contextlib
import ssl
import string
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

import aiohttp
import orjson
from aiohttp.http_exceptions import ContentEncodingError
from pydantic import Field, model_validator

from daca_common import model_failure
from daca_common.completion import Completion, Events, Gathering, Odd, OnText, Told, parse
from daca_common.dapr import DaprClient, DaprError, DaprUnavailable
from daca_common.model_failure import ModelFailed
from daca_common.proxy import proxy_for
from daca_common.settings import DaprSettings

CONNECTIONS: Final = 1000
KEY_SECONDS: Final = 300.0
"""After that a key that still works is asked for again: it may have been changed before the old one ends."""
KEY_ASKED_AGAIN_SECONDS: Final = 1.0
"""At most so often where the server refuses the key: those whose calls fail together ask once."""
MOST_BYTES: Final = 16 * 1024 * 1024
"""Of one answer. The longest reply that is kept takes less, whatever its escapes."""
ERROR_BYTES: Final = 64 * 1024
END_SECONDS: Final = 0.1
"""How long the connection's end may take after the answer's: then it can be used again."""


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
    model_ca_file: str = ""
    """Certificates (PEM) that are trusted besides the public ones; empty: none."""
    secret_store: str = "secretstore"  # noqa: S105 - a name, not a secret
    model_secret_name: str = "gemini-api-key"  # noqa: S105
    model_secret_key: str = "gemini-api-key"  # noqa: S105

    @model_validator(mode="after")
    def _model_is_named(self) -> Self:
        if not self.model:
            raise ValueError(f"MODEL_NAME must be set: provider {self.model_provider!r} serves what you loaded into it")
        return self

    @model_validator(mode="after")
    def _ways_to_the_model_are_right(self) -> Self:
        proxy_for(self.base_url)
        if self.model_ca_file:
            try:
                ssl.create_default_context().load_verify_locations(self.model_ca_file)
            except OSError as error:
                raise ValueError(
                    f"MODEL_CA_FILE {self.model_ca_file!r} holds no certificate in PEM ({error.strerror or error}): "
                    "name the key of a ConfigMap or Secret that does in model.ca.key"
                ) from None
        return self

    @property
    def model(self) -> str:
        """The model's name as the provider knows it."""
        return self.model_name or PROVIDERS[self.model_provider].model or ""

    @property
    def base_url(self) -> str:
        """Where the provider's chat API is."""
        return self.model_base_url or PROVIDERS[self.model_provider].base_url


class ModelClient:
    """One pooled client of the model's server. Connections and key are made when first needed."""

    def __init__(self, settings: ModelSettings, dapr: DaprClient) -> None:
        self._settings = settings
        self._url = f"{settings.base_url.rstrip('/')}/chat/completions"
        self._dapr = dapr
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None
        self._key = ""
        self._key_asked_at = 0.0
        self._asking = asyncio.Lock()

    async def close(self) -> None:
        """Closes the pooled connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def complete(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        on_text: OnText | None = None,
        private: str = "",
    ) -> Completion:
        """The model's answer; with ``on_text`` it is streamed, and each piece handed over as it comes.

        ``messages`` and ``tools`` are as the chat API has them; ``private`` is what the log must not show of them.

        Raises:
            ModelFailed: there is none that can be used.
        """
        request: dict[str, Any] = {"model": self._settings.model, "messages": list(messages)}
        if tools:
            request["tools"] = list(tools)
        if on_text is not None:
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        try:
            call = _Call(orjson.dumps(request), on_text, private, with_tools=bool(tools))
            key = await self.key()
            try:
                return await self._send(call, key)
            except ModelFailed as failed:
                # Refused before anything was said, the key may have been changed.
                if failed.kind is not model_failure.KEY_REFUSED or not call.rejected:
                    raise
                if (new := await self._renewed(key)) == key:
                    raise
                return await self._send(call, new)
        except ModelFailed:
            raise
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise self._failure(error) from error
        except Exception as error:  # what a server may send is an open set
            raise ModelFailed(model_failure.FAILED, type(error).__name__) from error

    async def key(self) -> str:
        """The API key.

        Raises:
            ModelFailed: the provider wants one and there is none, or it can't be one.
        """
        if not PROVIDERS[self._settings.model_provider].needs_key:
            return "none"  # these servers ignore it, and some want the header
        if not self._key or time.monotonic() - self._key_asked_at > KEY_SECONDS:
            async with self._asking:
                if not self._key:
                    await self._ask_key()
                elif time.monotonic() - self._key_asked_at > KEY_SECONDS:
                    with contextlib.suppress(ModelFailed):  # the one that is known works
                        await self._ask_key()
        return self._key

    async def _renewed(self, refused: str) -> str:
        """The key that is in the store now, after this one was refused."""
        if not PROVIDERS[self._settings.model_provider].needs_key:
            return refused
        async with self._asking:
            asked_lately = time.monotonic() - self._key_asked_at < KEY_ASKED_AGAIN_SECONDS
            if self._key == refused and not asked_lately:
                await self._ask_key()
        return self._key

    async def _ask_key(self) -> None:
        settings = self._settings
        store, name, key = settings.secret_store, settings.model_secret_name, settings.model_secret_key
        self._key_asked_at = time.monotonic()
        missing = (
            f"Provider {settings.model_provider!r} needs an API key: make a secret {name!r} with the key {key!r} "
            f"in the secret store {store!r} (k8s-secrets/README.md says how)."
        )
        try:
            found = (await self._dapr.get_secret(store, name)).get(key) or ""
        except DaprError as error:
            raise _key_missing(f"{missing} The store said: {error.message}") from error
        except DaprUnavailable as error:
            raise _key_missing(f"{missing} The sidecar did not answer: {error}") from error
        found = found.strip(_EDGES)
        if not found:
            raise _key_missing(missing)
        if not (found.isascii() and found.isprintable()) or " " in found:
            detail = (
                f"The key {key!r} of the secret {name!r} holds a character that no API key has (a space, a line end or "
                "one that is not ASCII): copy the key again and make the secret anew (k8s-secrets/README.md says how)."
            )
            raise ModelFailed(model_failure.KEY_REFUSED, "a character in the key that no key has", detail=detail)
        self._key = found

    async def _send(self, call: "_Call", key: str) -> Completion:
        """One request. A server may close a kept connection in the very moment in which it is used again: then it is
        sent once more."""
        try:
            return await self._exchange(call, key)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if call.answered:
                raise
            return await self._exchange(call, key)

    async def _exchange(self, call: "_Call", key: str) -> Completion:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        async with self._pool().post(
            self._url, data=call.body, headers=headers, allow_redirects=False, ssl=self._trusted()
        ) as response:
            call.answered = True
            call.rejected = response.status >= 300
            if call.rejected:
                raise await self._refusal(call, response)
            try:
                return await _read(response, call.on_text)
            except Told as told:
                raise model_failure.refused(
                    response.status, told.error, private=call.private, with_tools=call.with_tools
                ) from told
            except Odd as odd:
                raise _odd(odd, response.content_type) from odd

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:  # made here because a session belongs to the running event loop
            proxy = proxy_for(self._url)
            connector: aiohttp.BaseConnector
            if proxy is not None and proxy.startswith("socks"):
                from aiohttp_socks import ProxyConnector  # noqa: PLC0415 - seldom needed, and it takes a while to load

                connector, proxy = ProxyConnector.from_url(proxy, rdns=True, limit=CONNECTIONS), None
            else:
                connector = aiohttp.TCPConnector(limit=CONNECTIONS)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=self._settings.model_timeout_seconds),
                proxy=proxy,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _trusted(self) -> ssl.SSLContext | bool:
        if self._url.startswith("http:"):
            return True
        if self._tls is None:
            self._tls = ssl.create_default_context()  # the image's, or what SSL_CERT_FILE and SSL_CERT_DIR name
            if self._settings.model_ca_file:
                self._tls.load_verify_locations(self._settings.model_ca_file)
        return self._tls

    async def _refusal(self, call: "_Call", response: aiohttp.ClientResponse) -> ModelFailed:
        body = await response.content.read(ERROR_BYTES)
        while len(body) < ERROR_BYTES and (more := await response.content.read(ERROR_BYTES)):
            body += more
        return model_failure.refused(
            response.status,
            body,
            private=call.private,
            with_tools=call.with_tools,
            retry_after=response.headers.get("Retry-After", ""),
        )

    def _failure(self, error: Exception) -> ModelFailed:
        """What a call without an answer is."""
        kind, cause = model_failure.UNAVAILABLE, type(error).__name__
        match error:
            case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
                kind = model_failure.UNTRUSTED
                self._tls = None  # the file of the CA may have been changed
            case TimeoutError():
                kind, cause = model_failure.TIMEOUT, f"no answer within {self._settings.model_timeout_seconds:g} s"
            case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
                kind = model_failure.NOT_FOUND
            case aiohttp.ClientHttpProxyError():
                cause = f"the proxy answered {error.status}"
            case aiohttp.ClientPayloadError() if isinstance(error.__cause__, ContentEncodingError):
                kind, cause = model_failure.FAILED, "an answer that is not compressed as its header says"
            case aiohttp.ClientResponseError():
                kind = model_failure.FAILED
            case aiohttp.ClientConnectorError():
                cause = f"{cause}: {error.os_error.strerror or 'not reached'}"
        return ModelFailed(kind, cause)


@dataclass(slots=True)
class _Call:
    """A request, whether the server has begun to answer it, and whether it did so with an error's status."""

    body: bytes
    on_text: OnText | None
    private: str
    with_tools: bool
    answered: bool = False
    rejected: bool = False


_EDGES: Final = string.whitespace + "\ufeff\u00a0\u200b\u2060"
"""What editors, shells and web pages put around a key."""


def _odd(odd: Odd, kind: str) -> ModelFailed:
    known = kind in {"application/json", "text/event-stream"}
    hint = "" if known else " Does model.baseUrl end where /chat/completions begins, mostly in /v1?"
    cause = str(odd) if known or not kind.isprintable() else f"{odd} ({kind[:40]})"
    return ModelFailed(model_failure.FAILED, cause, detail=model_failure.FAILED.detail + hint)


def _key_missing(detail: str) -> ModelFailed:
    return ModelFailed(model_failure.KEY_MISSING, "no key in the secret store", detail=detail)


async def _read(response: aiohttp.ClientResponse, on_text: OnText | None) -> Completion:
    """Reads an answer by what it is, a stream or not, whichever was asked for."""
    kind = response.content_type
    streamed = kind == "text/event-stream" or (on_text is not None and "json" not in kind)
    gathering = Gathering(on_text, streamed=streamed)
    if not streamed:
        gathering.add(parse(b"".join([piece async for piece in _pieces(response)])))
        return gathering.end()
    events = Events()
    async for piece in _pieces(response):
        for payload in events.feed(piece):
            gathering.add(payload)
        if events.done:
            break
    for payload in events.end():
        gathering.add(payload)
    completion = gathering.end()
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(END_SECONDS):
            await response.content.readany()
    return completion


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        Odd: it is larger than any answer.
    """
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > MOST_BYTES:
            raise Odd(f"an answer of more than {MOST_BYTES:,} bytes")
        yield piece
