"""The agent against a server of the OpenAI chat API: what it is told, what it does with each way of failing."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from chat_service.agent import ChatAgent, Context, OnToken, instructions
from chat_service.memory import Memory
from daca_common.dapr import DaprClient
from daca_common.model import ModelClient, ModelSettings
from daca_common.problems import Problem

CONTEXT = Context(
    memory=Memory(name="Junaid", preferred_style="casual", user_summary="Junaid likes books."),
    window=(("Hi there", "Hello Junaid!"),),
    running_summary="",
)

CHUNK = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"finish_reason":"stop","delta":{"role":"assistant","content":"Hello!"}}]}\n\n'
)


class Model:
    """Answers as it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.status = 200
        self.messages: list[dict[str, Any]] = [{"role": "assistant", "content": "Hello!"}]
        self.delay = 0.0
        self.port = 0
        self.breaks_off = 0
        """So many of the next requests get no answer: their connection is closed."""
        self.odd: tuple[str, bytes] | None = None
        """Content type and body of an answer as no server should give it."""
        self.breaks_in_the_middle = False
        """That answer is a stream whose connection is closed before its end."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        await asyncio.sleep(self.delay)
        if self.breaks_off:
            self.breaks_off -= 1
            assert request.transport
            request.transport.close()
        if self.odd is not None and self.breaks_in_the_middle:
            streamed = web.StreamResponse(headers={"Content-Type": self.odd[0]})
            await streamed.prepare(request)
            await streamed.write(self.odd[1])
            assert request.transport
            request.transport.close()
            return streamed
        if self.odd is not None:
            return web.Response(body=self.odd[1], content_type=self.odd[0])
        if self.status != 200:
            return web.json_response({"error": {"message": "no", "type": "server_error"}}, status=self.status)
        message = self.messages[min(len(self.requests), len(self.messages)) - 1]
        finish = "tool_calls" if "tool_calls" in message else "stop"
        return web.json_response(
            {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0, "finish_reason": finish, "message": message}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        )


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    model = Model()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", model.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    model.port = runner.addresses[0][1]
    yield model
    await runner.cleanup()


async def replied(
    port: int,
    text: str = "Hi",
    *,
    context: Context = CONTEXT,
    timeout_seconds: float = 5.0,
    context_tokens: int = 32_000,
    on_token: OnToken | None = None,
    **settings: Any,
) -> str:
    options = ModelSettings(model_base_url=f"http://127.0.0.1:{port}/v1", dapr_http_port=1, **settings)
    async with DaprClient(options.dapr_http_port) as dapr:
        client = ModelClient(options, dapr)
        try:
            agent = ChatAgent(client, options.model, timeout_seconds, context_tokens)
            return await agent.reply(text, context, on_token)
        finally:
            await client.close()


def test_the_instructions_carry_name_style_and_both_summaries():
    told = instructions(Context(CONTEXT.memory, CONTEXT.window, "They spoke of novels."))
    assert told == (
        "You are a helpful chatbot. Respond in a casual way. If the user asks for the time, use the get_current_time "
        "tool. The user's name is Junaid. User summary: Junaid likes books.\n"
        "Earlier conversation in brief: They spoke of novels."
    )


async def test_the_model_is_asked_with_the_instructions_the_window_as_messages_and_the_tool(model: Model):
    assert await replied(model.port, "Hi") == "Hello!"
    (asked,) = model.requests
    assert asked["messages"] == [
        {"role": "system", "content": instructions(CONTEXT)},
        {"role": "user", "content": "Hi there"},
        {"role": "assistant", "content": "Hello Junaid!"},
        {"role": "user", "content": "Hi"},
    ]
    assert [tool["function"]["name"] for tool in asked["tools"]] == ["get_current_time"]


async def test_each_turn_is_told_its_own_instructions(model: Model):
    options = ModelSettings(model_base_url=f"http://127.0.0.1:{model.port}/v1", dapr_http_port=1)
    async with DaprClient(1) as dapr:
        client = ModelClient(options, dapr)
        agent = ChatAgent(client, options.model, 5.0, 32_000)
        for name in ("Aisha", "Bilal"):
            await agent.reply("Hi", Context(Memory.of_new_user(name), (), ""))
        await client.close()
    assert [
        f"The user's name is {name}." in asked["messages"][0]["content"]
        for name, asked in zip(("Aisha", "Bilal"), model.requests, strict=True)
    ] == [True, True]


async def test_what_the_model_can_not_take_is_left_out_oldest_first(model: Model):
    window = (("one", "1"), ("two", "x" * 4000), ("three", "3"))
    context = Context(CONTEXT.memory, window, "")
    await replied(model.port, "hi", context=context, context_tokens=1000)
    assert [message["content"] for message in model.requests[0]["messages"][1:]] == ["three", "3", "hi"]


async def test_after_a_reply_that_filled_the_context_the_next_message_is_answered(model: Model):
    context = Context(CONTEXT.memory, (("tell me all", "x" * 100_000),), "")
    assert await replied(model.port, "hi", context=context, context_tokens=8000) == "Hello!"
    assert [message["content"] for message in model.requests[0]["messages"][1:]] == ["hi"]


async def test_the_time_comes_from_the_tool(model: Model):
    call = {"id": "1", "type": "function", "function": {"name": "get_current_time", "arguments": "{}"}}
    model.messages = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "assistant", "content": "It is late."},
    ]
    assert await replied(model.port, "What time is it?") == "It is late."
    result = model.requests[1]["messages"][-1]
    assert result["role"] == "tool"
    assert result["content"].endswith(" UTC")


@pytest.mark.parametrize(
    ("status", "answered"), [(500, 502), (401, 502), (400, 502), (404, 502), (429, 503), (503, 502), (200, 502)]
)
async def test_a_failed_model_call_is_a_problem_and_never_a_reply(model: Model, status: int, answered: int):
    model.status = status
    model.messages = [{"role": "assistant", "content": " "}]
    with pytest.raises(Problem) as failed:
        await replied(model.port)
    assert failed.value.status == answered
    assert "Nothing was stored" in failed.value.detail
    assert len(model.requests) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_connection_that_the_model_closes_as_it_is_used_is_tried_once_more(model: Model, streamed: bool):
    model.breaks_off = 1
    if streamed:
        model.odd = ("text/event-stream", CHUNK + b"data: [DONE]\n\n")
    assert await replied(model.port, on_token=(lambda _: None) if streamed else None) == "Hello!"
    assert len(model.requests) == 2


async def test_a_stream_that_breaks_off_after_its_first_piece_is_not_begun_again(model: Model):
    told: list[str] = []
    model.odd = ("text/event-stream", CHUNK)
    model.breaks_in_the_middle = True
    with pytest.raises(Problem):
        await replied(model.port, on_token=told.append)
    assert (told, len(model.requests)) == (["Hello!"], 1)


async def test_a_refusal_is_a_failed_call(model: Model):
    model.messages = [{"role": "assistant", "content": None, "refusal": "I will not."}]
    with pytest.raises(Problem) as raised:
        await replied(model.port)
    assert raised.value.status == 502


async def test_a_model_that_asks_for_tools_for_ever_or_for_one_that_there_is_not_is_a_failed_call(model: Model):
    for name, calls in (("get_current_time", 10), ("open_the_door", 1)):
        call = {"id": "1", "type": "function", "function": {"name": name, "arguments": "{}"}}
        model.messages, model.requests = [{"role": "assistant", "content": None, "tool_calls": [call]}], []
        with pytest.raises(Problem) as raised:
            await replied(model.port)
        assert (raised.value.status, len(model.requests)) == (502, calls)


async def test_a_model_that_closes_each_connection_is_a_503(model: Model):
    model.breaks_off = 2
    with pytest.raises(Problem) as raised:
        await replied(model.port)
    assert (raised.value.status, len(model.requests)) == (503, 2)


async def test_a_model_that_is_too_slow_is_a_504(model: Model):
    model.delay = 1.0
    with pytest.raises(Problem) as failed:
        await replied(model.port, timeout_seconds=0.1)
    assert failed.value.status == 504


async def test_a_model_that_cannot_be_reached_is_a_503():
    with pytest.raises(Problem) as failed:
        await replied(1)
    assert failed.value.status == 503


async def test_a_reply_longer_than_what_is_kept_is_refused_rather_than_cut(model: Model):
    model.messages = [{"role": "assistant", "content": "x" * 100_001}]
    with pytest.raises(Problem) as failed:
        await replied(model.port)
    assert failed.value.status == 502


async def test_a_missing_key_is_a_503_that_names_the_secret(model: Model):
    with pytest.raises(Problem) as failed:
        await replied(model.port, model_provider="gemini")
    assert failed.value.status == 503
    assert "'gemini-api-key'" in failed.value.detail
    assert model.requests == []


def test_a_provider_that_serves_what_you_loaded_wants_the_name_of_it():
    with pytest.raises(ValueError, match="MODEL_NAME must be set"):
        ModelSettings(model_provider="vllm")


ODD: dict[str, tuple[str, bytes]] = {
    "HTML with 200": ("text/html", b"<html>SECRET</html>"),
    "JSON cut in the middle": ("application/json", b'{"id": "c", "choices": [{"mess'),
    "bytes that are not UTF-8": ("application/json", b'{"id": "\xff\xfe"}'),
    "no choices": ("application/json", b'{"id": "c", "object": "chat.completion", "created": 1, "model": "m"}'),
    "choices that are null": ("application/json", b'{"id": "c", "choices": null}'),
    "a content that is a list": (
        "application/json",
        b'{"id":"c","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":[{"a":1}]}}]}',
    ),
    "half of a surrogate pair": (
        "application/json",
        b'{"id":"c","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"\\ud83d"}}]}',
    ),
    "nothing": ("application/json", b""),
    "a number": ("application/json", b"7"),
}


@pytest.mark.parametrize("kind", ODD)
async def test_an_odd_answer_is_a_failed_call_whose_kind_is_logged_without_its_text(
    model: Model, kind: str, caplog: pytest.LogCaptureFixture
):
    model.odd = ODD[kind]
    with pytest.raises(Problem) as failed, caplog.at_level("WARNING"):
        await replied(model.port, "MY SECRET")
    assert failed.value.status == 502
    assert "SECRET" not in " ".join(str(vars(record)) for record in caplog.records)


async def test_a_summary_is_made_of_the_present_one_and_what_was_said(model: Model):
    model.messages = [{"role": "assistant", "content": " They spoke of tea. "}]
    options = ModelSettings(model_base_url=f"http://127.0.0.1:{model.port}/v1", dapr_http_port=1)
    async with DaprClient(1) as dapr:
        client = ModelClient(options, dapr)
        agent = ChatAgent(client, options.model, 5.0, 32_000)
        assert await agent.summarize("They met.", (("I like tea", "Good"),)) == "They spoke of tea."
        model.messages = [{"role": "assistant", "content": ""}]
        with pytest.raises(Problem):
            await agent.summarize("They met.", (("I like tea", "Good"),))
        await client.close()
    assert "Present summary: They met.\nNew messages:\nUser: I like tea\nAssistant: Good" in str(
        model.requests[0]["messages"][1]["content"]
    )
