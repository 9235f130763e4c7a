"""By which proxy a server is reached, and that it is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from daca_common import model_failure
from daca_common.dapr import DaprClient
from daca_common.model import ModelClient, ModelSettings
from daca_common.model_failure import ModelFailed
from daca_common.proxy import proxy_for

ANSWER = b'{"choices":[{"finish_reason":"stop","message":{"content":"Hello!"}}]}'


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "https://api.openai.com/v1", "http://p:3128"),
        ({"https_proxy": "http://p:3128"}, "https://api.openai.com/v1", "http://p:3128"),
        ({"HTTPS_PROXY": "p:3128"}, "https://api.openai.com/v1", "http://p:3128"),
        ({"HTTPS_PROXY": " http://me:word@p:3128 "}, "https://api.openai.com/v1", "http://me:word@p:3128"),
        ({"HTTPS_PROXY": ""}, "https://api.openai.com/v1", None),
        ({"HTTP_PROXY": "http://p:3128"}, "https://api.openai.com/v1", None),
        ({"HTTP_PROXY": "http://p:3128"}, "http://models.example.com/v1", "http://p:3128"),
        ({"ALL_PROXY": "socks5://p:1080"}, "https://api.openai.com/v1", "socks5://p:1080"),
        ({"ALL_PROXY": "socks5h://p:1080"}, "https://api.openai.com/v1", "socks5://p:1080"),
        ({"ALL_PROXY": "socks5://p:1080", "HTTPS_PROXY": "http://p:3128"}, "https://a.example.com", "http://p:3128"),
    ],
)
def test_it_is_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    environment(monkeypatch, **variables)
    told = proxy_for(url)
    assert told is None if proxy is None else told is not None and told.rstrip("/") == proxy


@pytest.mark.parametrize(
    "host",
    [
        "offline-model:8002",
        "ollama:11434",
        "ollama.models.svc",
        "vllm-0.vllm.models.svc.cluster.local:8000",
        "vllm.models.svc.corp.example.com",
        "localhost:11434",
        "127.0.0.1:11434",
        "[::1]:11434",
    ],
)
def test_what_only_the_cluster_knows_is_reached_directly(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    environment(monkeypatch, HTTP_PROXY="http://p:3128", ALL_PROXY="socks5://p:1080")
    assert proxy_for(f"http://{host}/v1") is None


@pytest.mark.parametrize(
    ("exceptions", "host", "direct"),
    [
        ("models.example.com", "models.example.com", True),
        (".example.com, .svc", "models.example.com", True),
        ("example.com", "models.example.com", True),
        ("*.Example.com", "models.example.com", True),
        ("example.org,ple.com", "models.example.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8,fd00::/8", "[fd00::7]", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.0.0.0/8", "192.168.0.1", False),
        ("*", "models.example.com", True),
        ("*", "192.168.0.1", True),
        ("nonsense/99,,", "192.168.0.1", False),
    ],
)
def test_and_so_is_what_no_proxy_lists(
    monkeypatch: pytest.MonkeyPatch, exceptions: str, host: str, direct: bool
) -> None:
    environment(monkeypatch, HTTPS_PROXY="http://p:3128", NO_PROXY=exceptions)
    assert (proxy_for(f"https://{host}/v1") is None) == direct


@pytest.mark.parametrize("told", ["ftp://p:21", "http://", "socks9://p", "http://p:port", "://"])
def test_one_that_is_none_stops_the_start_by_its_name(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    environment(monkeypatch, HTTPS_PROXY=told)
    with pytest.raises(ValueError, match="HTTPS_PROXY is no proxy's address"):
        ModelSettings(model_base_url="https://api.example.com/v1")


class Proxy:
    """An HTTP or a SOCKS proxy that answers in the place of every server, and remembers which was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refuses = False
        self.port = 0

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readline()).decode().split(" ")[1])
        if self.refuses:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        else:
            await self._answer(reader, writer)
        writer.close()

    async def socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        writer.write(b"\x05\x00")
        kind = (await reader.readexactly(4))[3]
        assert kind == 3, "a name that the proxy is to look up"
        host = await reader.readexactly((await reader.readexactly(1))[0])
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(f"{host.decode()}:{port}")
        writer.write(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
        await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(ANSWER)}\r\n\r\n"
        writer.write(head.encode() + ANSWER)
        await writer.drain()


@pytest.fixture
def proxy() -> Proxy:
    return Proxy()


@contextlib.asynccontextmanager
async def asking(url: str) -> AsyncIterator[ModelClient]:
    async with DaprClient(1) as dapr:
        client = ModelClient(ModelSettings(model_provider="ollama", model_base_url=url), dapr)
        try:
            yield client
        finally:
            await client.close()


@pytest.mark.parametrize("kind", ["http", "socks"])
async def test_the_model_is_reached_by_it(monkeypatch: pytest.MonkeyPatch, proxy: Proxy, kind: str) -> None:
    async with await asyncio.start_server(getattr(proxy, kind), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        scheme = {"http": "http", "socks": "socks5"}[kind]
        environment(monkeypatch, ALL_PROXY=f"{scheme}://127.0.0.1:{port}")
        async with asking("http://model.example.org:8000/v1") as client:
            assert (await client.complete([{"role": "user", "content": "Hi"}])).text == "Hello!"
    assert [asked.removeprefix("http://").partition("/")[0] for asked in proxy.asked] == ["model.example.org:8000"]


async def test_one_that_refuses_is_told_of(monkeypatch: pytest.MonkeyPatch, proxy: Proxy) -> None:
    proxy.refuses = True
    async with await asyncio.start_server(proxy.http, "127.0.0.1", 0) as server:
        environment(monkeypatch, HTTPS_PROXY=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with asking("https://model.example.org/v1") as client:
            with pytest.raises(ModelFailed, match="the proxy answered 407") as failed:
                await client.complete([{"role": "user", "content": "Hi"}])
    assert failed.value.kind is model_failure.UNAVAILABLE
    assert proxy.asked == ["model.example.org:443"]
