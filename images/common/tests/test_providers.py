"""The contract with each provider: shapes of its answers and errors, as its documentation and its users show them.

``recorded/PROVIDER.json`` has them, written by hand, each with its source; ids and texts are made up. A case has a
``status``, a ``body`` (or a ``text``, or the chunks of a ``stream``), and what is expected of it: a text and its
finish, tool calls and how they go back to the server, or a kind of failure.
"""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from daca_common.dapr import DaprClient
from daca_common.model import PROVIDERS, ModelClient, ModelSettings
from daca_common.model_failure import ModelFailed
from support.sidecar import FakeSidecar

RECORDED = Path(__file__).parent / "recorded"
TOOL = {"type": "function", "function": {"name": "get_current_time", "parameters": {"type": "object"}}}


CASES = [
    pytest.param(file.stem, case, id=f"{file.stem}: {case['name']}")
    for file in sorted(RECORDED.glob("*.json"))
    for case in json.loads(file.read_text())
]


def response(case: dict[str, Any]) -> web.Response:
    headers = case.get("headers", {})
    if "stream" in case:
        chunks = [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in case["stream"]]
        body = b"".join([*chunks, b"data: [DONE]\n\n"])
        return web.Response(body=body, content_type="text/event-stream")
    body = case["text"].encode() if "text" in case else orjson.dumps(case["body"])
    return web.Response(
        body=body, status=case.get("status", 200), headers={"Content-Type": "application/json"} | headers
    )


@pytest.mark.parametrize(("provider", "case"), CASES)
async def test_it_is_read_as_what_it_is(provider: str, case: dict[str, Any]) -> None:
    async def answer(_: web.Request) -> web.Response:
        return response(case)

    app = web.Application()
    app.router.add_post("/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    expected = case["expected"]
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    settings = ModelSettings(model_provider=provider, model_base_url=url, model_name="m")
    async with FakeSidecar() as sidecar, DaprClient(sidecar.port) as dapr:
        sidecar.secrets["gemini-api-key"] = {"gemini-api-key": "k"}
        client = ModelClient(settings, dapr)
        told: list[str] = []
        try:
            completion = await client.complete(
                [{"role": "user", "content": "Hi"}], tools=[TOOL], on_text=told.append if "stream" in case else None
            )
        except ModelFailed as failed:
            seen: dict[str, Any] = {"kind": failed.kind.name}
            if "retry_after" in expected:
                seen["retry_after"] = failed.retry_after
        else:
            seen = {"text": completion.text}
            if "finish" in expected or completion.finish != "stop":
                seen["finish"] = completion.finish
            if completion.calls:
                seen["calls"] = [[call.id, call.name, call.arguments] for call in completion.calls]
                seen["tool_calls"] = completion.message["tool_calls"]
            assert "".join(told) == (completion.text if "stream" in case else "")
        finally:
            await client.close()
    await runner.cleanup()
    assert seen == expected


def test_every_provider_has_its_shapes() -> None:
    assert {file.stem for file in RECORDED.glob("*.json")} == PROVIDERS.keys() - {"offline"}


@pytest.mark.parametrize(("provider", "case"), CASES)
def test_every_shape_has_its_source(provider: str, case: dict[str, Any]) -> None:
    assert case["source"].startswith("https://"), provider
