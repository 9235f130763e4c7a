"""The model's client: its key from the secret store, its ways to the server, and what each failure is told as."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from daca_common import model, model_failure
from daca_common.dapr import DaprClient
from daca_common.model import ModelClient, ModelSettings
from daca_common.model_failure import ModelFailed
from support.certificates import Authority
from support.sidecar import FakeSidecar

MESSAGES = [{"role": "user", "content": "Hi"}]
ANSWER = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello!"}}]}
EVENT = b'data: {"choices":[{"index":0,"finish_reason":"stop","delta":{"content":"Hello!"}}]}\n\n'


class Server:
    """A server of the chat API that answers what a test wants."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        """With which each request came."""
        self.good_key: str | None = None
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.hello
        self.port = 0

    async def hello(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(ANSWER)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers["Authorization"].removeprefix("Bearer "))
        if self.good_key is not None and self.keys[-1] != self.good_key:
            return web.json_response({"error": {"message": f"Incorrect API key: {self.keys[-1]}"}}, status=401)
        return await self.answer(request)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


async def served(server: Server, tls: ssl.SSLContext | None = None) -> web.AppRunner:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    server.port = runner.addresses[0][1]
    return runner


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    runner = await served(server)
    yield server
    await runner.cleanup()


@pytest.fixture
async def sidecar() -> AsyncIterator[FakeSidecar]:
    async with FakeSidecar() as sidecar:
        yield sidecar


Make = Callable[..., ModelClient]


@pytest.fixture
async def make(sidecar: FakeSidecar, server: Server) -> AsyncIterator[Make]:
    made: list[ModelClient] = []
    async with DaprClient(sidecar.port) as dapr:

        def make(**settings: Any) -> ModelClient:
            options = {"model_base_url": server.url, "model_provider": "openai"} | settings
            made.append(ModelClient(ModelSettings(**options), dapr))
            return made[-1]

        yield make
        for client in made:
            await client.close()


class TestKey:
    async def test_a_provider_without_a_key_needs_no_secret(self, make: Make, sidecar: FakeSidecar) -> None:
        assert (await make(model_provider="ollama").complete(MESSAGES)).text == "Hello!"
        assert sidecar.requests == []

    async def test_it_comes_from_the_secret_store(self, make: Make, sidecar: FakeSidecar, server: Server) -> None:
        sidecar.secrets["mine"] = {"key": "the-key"}
        await make(model_secret_name="mine", model_secret_key="key").complete(MESSAGES)
        assert server.keys == ["the-key"]
        assert sidecar.requests == ["GET /v1.0/secrets/secretstore/mine"]

    async def test_a_missing_one_is_told_with_the_mend_and_asked_for_again(
        self, make: Make, sidecar: FakeSidecar
    ) -> None:
        client = make()
        for secrets in ({}, {"gemini-api-key": {"other": "k"}}, {"gemini-api-key": {"gemini-api-key": " \n"}}):
            sidecar.secrets = secrets
            with pytest.raises(ModelFailed) as failed:
                await client.complete(MESSAGES)
            assert failed.value.kind is model_failure.KEY_MISSING
            assert "make a secret 'gemini-api-key'" in failed.value.detail
            assert "k8s-secrets/README.md" in failed.value.detail
        sidecar.secrets = {"gemini-api-key": {"gemini-api-key": "k"}}
        assert (await client.complete(MESSAGES)).text == "Hello!"

    async def test_a_store_that_fails_is_a_missing_key_that_says_why(self, make: Make, sidecar: FakeSidecar) -> None:
        async def fail(_: web.Request) -> web.Response:
            return web.json_response({"errorCode": "ERR_SECRET_STORE_NOT_FOUND", "message": "no store"}, status=401)

        sidecar.before = fail
        with pytest.raises(ModelFailed) as failed:
            await make().complete(MESSAGES)
        assert "no store" in failed.value.detail

    async def test_those_who_ask_at_once_ask_the_store_once(self, make: Make, sidecar: FakeSidecar) -> None:
        sidecar.secrets["gemini-api-key"] = {"gemini-api-key": "k"}
        client = make()
        await asyncio.gather(*(client.complete(MESSAGES) for _ in range(10)))
        assert len(sidecar.requests) == 1

    @pytest.mark.parametrize("told", ["k1\n", "k1\r\n", " k1", "\tk1 ", "\ufeffk1", "\u00a0k1\u200b", "\ufeff k1\r\n"])
    async def test_what_stands_around_it_is_no_part_of_it(
        self, make: Make, sidecar: FakeSidecar, server: Server, told: str
    ) -> None:
        sidecar.secrets["gemini-api-key"] = {"gemini-api-key": told}
        await make().complete(MESSAGES)
        assert server.keys == ["k1"]

    @pytest.mark.parametrize("told", ["k\u20131", "k 1", "k\n1", "k\x001", "k\u00e91", "k\ufeff1"])
    async def test_one_that_can_be_none_is_refused_by_the_name_of_its_secret(
        self, make: Make, sidecar: FakeSidecar, server: Server, told: str
    ) -> None:
        sidecar.secrets["gemini-api-key"] = {"gemini-api-key": told}
        with pytest.raises(ModelFailed) as failed:
            await make().complete(MESSAGES)
        assert failed.value.kind is model_failure.KEY_REFUSED
        assert "secret 'gemini-api-key'" in failed.value.detail
        assert told not in failed.value.detail + failed.value.cause
        assert server.keys == []

    async def test_a_changed_one_is_taken_up_when_the_server_refuses_the_old(
        self, make: Make, sidecar: FakeSidecar, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model, "KEY_ASKED_AGAIN_SECONDS", 0.0)
        sidecar.secrets["gemini-api-key"] = {"gemini-api-key": "old"}
        server.good_key = "old"
        client = make()
        await client.complete(MESSAGES)
        server.good_key = "new"
        sidecar.secrets["gemini-api-key"] = {"gemini-api-key": "new\n"}
        answers = await asyncio.gather(*(client.complete(MESSAGES) for _ in range(5)))
        assert {answer.text for answer in answers} == {"Hello!"}
        assert set(server.keys) == {"old", "new"}
        assert len(sidecar.requests) == 2

    async def test_a_changed_one_is_taken_up_while_the_old_still_works(
        self, make: Make, sidecar: FakeSidecar, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sidecar.secrets["gemini-api-key"] = {"gemini-api-key": "old"}
        client = make()
        await client.complete(MESSAGES)
        sidecar.secrets["gemini-api-key"] = {"gemini-api-key": "new"}
        monkeypatch.setattr(model, "KEY_SECONDS", 0.0)
        await client.complete(MESSAGES)
        sidecar.secrets.clear()  # a store without an answer leaves what is known
        await client.complete(MESSAGES)
        assert server.keys == ["old", "new", "new"]

    async def test_one_that_stays_wrong_is_refused_and_not_shown(
        self, make: Make, sidecar: FakeSidecar, server: Server
    ) -> None:
        sidecar.secrets["gemini-api-key"] = {"gemini-api-key": "sk-wrong-1234"}
        server.good_key = "right"
        with pytest.raises(ModelFailed) as failed:
            await make().complete(MESSAGES)
        assert failed.value.kind is model_failure.KEY_REFUSED
        assert "Incorrect API key" in failed.value.cause
        assert "wrong" not in failed.value.cause


class TestAnswers:
    @pytest.mark.parametrize("asked", [False, True])
    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ("application/json", b'{"choices":[{"message":{"content":"Hello!"}}]}'),
            ("application/json; charset=utf-8", b'\xef\xbb\xbf{"choices":[{"message":{"content":"Hello!"}}]}'),
            ("text/event-stream", EVENT + b"data: [DONE]\n\n"),
            ("text/event-stream; charset=utf-8", EVENT),
        ],
    )
    async def test_what_comes_is_read_as_what_it_is_whatever_was_asked_for(
        self, make: Make, server: Server, asked: bool, kind: str, body: bytes
    ) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=body, headers={"Content-Type": kind})

        server.answer = answer
        told: list[str] = []
        client = make(model_provider="ollama")
        assert (await client.complete(MESSAGES, on_text=told.append if asked else None)).text == "Hello!"
        assert told == (["Hello!"] if asked else [])

    async def test_connections_are_used_again_after_a_stream(self, make: Make, server: Server) -> None:
        ports: set[int] = set()

        async def answer(request: web.Request) -> web.StreamResponse:
            assert request.transport
            ports.add(request.transport.get_extra_info("peername")[1])
            return web.Response(body=EVENT + b"data: [DONE]\n\n", content_type="text/event-stream")

        server.answer = answer
        client = make(model_provider="ollama")
        for _ in range(3):
            await client.complete(MESSAGES, on_text=lambda _: None)
        assert len(ports) == 1

    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize(
        ("headers", "body"),
        [
            ({"Content-Type": "text/html"}, b"<html>welcome</html>"),
            ({"Content-Type": "text/plain"}, b"Ollama is running"),
            ({"Content-Encoding": "gzip"}, b"not compressed"),
            ({}, b""),
            ({"Content-Type": "application/json"}, b'{"choices":[{"message":{"content":"caf\xe9"}}]}'),
            ({"Content-Type": "text/event-stream"}, EVENT.replace(b"Hello!", b"caf\xe9")),
            ({"Content-Type": "text/event-stream"}, b'data: {"id": "c", "choi\n\n'),
        ],
    )
    async def test_an_answer_that_is_none_is_a_failure_with_its_cause(
        self, make: Make, server: Server, streamed: bool, headers: dict[str, str], body: bytes
    ) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=body, headers=headers)

        server.answer = answer
        with pytest.raises(ModelFailed) as failed:
            await make(model_provider="ollama").complete(MESSAGES, on_text=(lambda _: None) if streamed else None)
        assert failed.value.kind is model_failure.FAILED
        assert failed.value.cause

    async def test_an_answer_without_an_end_is_not_read_for_ever(
        self, make: Make, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model, "MOST_BYTES", 100_000)

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            with contextlib.suppress(ConnectionError):
                while True:
                    await response.write(b": ping\n\n" * 1000)
            return response

        server.answer = answer
        with pytest.raises(ModelFailed, match="100,000 bytes"):
            await make(model_provider="ollama").complete(MESSAGES, on_text=lambda _: None)

    async def test_a_redirect_is_told_and_not_followed(self, make: Make, server: Server) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            raise web.HTTPPermanentRedirect("http://127.0.0.1:1/")

        server.answer = answer
        with pytest.raises(ModelFailed) as failed:
            await make(model_provider="ollama").complete(MESSAGES)
        assert failed.value.kind is model_failure.MOVED

    async def test_how_long_to_wait_is_what_the_server_says(self, make: Make, server: Server) -> None:
        for told, read in (("17", 17), ("86400", 300), ("0", 1), ("Wed, 21 Oct 2026 07:28:00 GMT", 5), ("-3", 5)):

            async def answer(_: web.Request, told: str = told) -> web.StreamResponse:
                return web.json_response({"error": "busy"}, status=503, headers={"Retry-After": told})

            server.answer = answer
            with pytest.raises(ModelFailed) as failed:
                await make(model_provider="ollama").complete(MESSAGES)
            assert (failed.value.kind, failed.value.retry_after) == (model_failure.UNAVAILABLE, read)


class TestTls:
    async def test_a_private_ca_is_trusted_where_it_is_named(self, make: Make, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        server = Server()
        runner = await served(server, authority.server_context("127.0.0.1"))
        url = server.url.replace("http:", "https:")
        with pytest.raises(ModelFailed) as failed:
            await make(model_provider="ollama", model_base_url=url).complete(MESSAGES)
        assert failed.value.kind is model_failure.UNTRUSTED
        client = make(model_provider="ollama", model_base_url=url, model_ca_file=str(authority.file))
        assert (await client.complete(MESSAGES)).text == "Hello!"
        await runner.cleanup()

    @pytest.mark.parametrize("content", [None, "", "no certificate"])
    def test_a_file_that_holds_none_is_named(self, tmp_path: Path, content: str | None) -> None:
        file = tmp_path / "ca.crt"
        if content is not None:
            file.write_text(content)
        with pytest.raises(ValueError, match=r"MODEL_CA_FILE '.*/ca.crt'.*model.ca.key"):
            ModelSettings(model_ca_file=str(file))
