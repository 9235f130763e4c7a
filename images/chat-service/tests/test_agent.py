"""The agent against a server of the OpenAI chat API: what it is told, what it does with each way of failing."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import pytest
from aiohttp import web
from chat_service.agent import ChatAgent, Context, OnToken, Policy, Reply, instructions
from chat_service.memory import Memory
from daca_common.dapr import DaprClient
from daca_common.logs import begin_trace
from daca_common.model import ModelClient, ModelSettings
from daca_common.model_failure import ModelFailed
from daca_common.problems import Problem

CONTEXT = Context(
    memory=Memory(name="Junaid", preferred_style="casual", user_summary="Junaid likes books."),
    window=(("Hi there", "Hello Junaid!"),),
    running_summary="",
)


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    """A piece of a stream."""
    return b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}) + b"\n\n"


CHUNK = chunk({"role": "assistant", "content": "Hello!"}, "stop")


class Model:
    """Answers as it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.status = 200
        self.messages: list[dict[str, Any]] = [{"role": "assistant", "content": "Hello!"}]
        self.finish = "stop"
        self.delay = 0.0
        self.port = 0
        self.answer_with: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.breaks_off = 0
        """So many of the next requests get no answer: their connection is closed."""
        self.odd: tuple[str, bytes] | None = None
        """Content type and body of an answer as no server should give it."""
        self.breaks_in_the_middle = False
        """That answer is a stream whose connection is closed before its end."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        await asyncio.sleep(self.delay)
        if self.answer_with is not None:
            return await self.answer_with(request)
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
        finish = "tool_calls" if "tool_calls" in message else self.finish
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


async def replied(port: int, text: str = "Hi", **more: Any) -> str:
    return (await reply(port, text, **more)).text


async def reply(
    port: int,
    text: str = "Hi",
    *,
    context: Context = CONTEXT,
    timeout_seconds: float = 5.0,
    context_tokens: int = 32_000,
    on_token: OnToken | None = None,
    tools: bool = True,
    on_length: Policy = "answer",
    on_content_filter: Policy = "refuse",
    **settings: Any,
) -> Reply:
    options = ModelSettings(model_base_url=f"http://127.0.0.1:{port}/v1", dapr_http_port=1, **settings)
    async with DaprClient(options.dapr_http_port) as dapr:
        client = ModelClient(options, dapr)
        try:
            agent = ChatAgent(
                client,
                timeout_seconds,
                context_tokens,
                tools=tools,
                on_length=on_length,
                on_content_filter=on_content_filter,
            )
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
        agent = ChatAgent(client, 5.0, 32_000)
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
    ("status", "answered", "kind"),
    [
        (500, 502, "model-failed"),
        (401, 502, "model-key-refused"),
        (400, 502, "model-rejected"),
        (404, 502, "model-not-found"),
        (429, 503, "model-unavailable"),
        (503, 503, "model-unavailable"),
        (200, 502, "model-failed"),
    ],
)
async def test_a_failed_model_call_is_a_problem_and_never_a_reply(model: Model, status: int, answered: int, kind: str):
    model.status = status
    model.messages = [{"role": "assistant", "content": " "}]
    with pytest.raises(Problem) as failed:
        await replied(model.port)
    assert (failed.value.status, failed.value.kind) == (answered, f"/problems/{kind}")
    assert "Nothing was stored" in failed.value.detail
    assert ("send it again" in failed.value.detail) == (kind in {"model-failed", "model-unavailable"})
    assert ("Retry-After" in failed.value.headers) == (answered == 503)
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


async def test_half_a_reply_is_no_reply_though_the_connection_ends_well(model: Model):
    for end in (b"", b"data: [DONE]\n\n"):
        model.odd = ("text/event-stream", chunk({"content": "Hel"}) + end)
        with pytest.raises(Problem) as failed:
            await replied(model.port, on_token=lambda _: None)
        assert failed.value.kind == "/problems/model-failed"


async def test_a_refusal_is_told_as_one(model: Model):
    model.messages = [{"role": "assistant", "content": None, "refusal": "I will not."}]
    with pytest.raises(Problem) as raised:
        await replied(model.port)
    assert (raised.value.status, raised.value.kind) == (502, "/problems/model-refused")
    assert "send it again" not in raised.value.detail


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("finish", "setting", "kind"),
    [("length", "on_length", "model-reply-cut"), ("content_filter", "on_content_filter", "model-refused")],
)
async def test_a_reply_that_was_cut_is_answered_with_its_reason_or_refused_by_setting(
    model: Model, streamed: bool, finish: str, setting: str, kind: str
):
    model.messages, model.finish = [{"role": "assistant", "content": "Once upon"}], finish
    on_token = (lambda _: None) if streamed else None
    if streamed:
        model.odd = ("text/event-stream", chunk({"content": "Once upon"}) + chunk({}, finish))
    cut = await reply(model.port, on_token=on_token, **{setting: "answer"})
    assert (cut.text, cut.finish) == ("Once upon", finish)
    with pytest.raises(Problem) as refused:
        await reply(model.port, on_token=on_token, **{setting: "refuse"})
    assert (refused.value.status, refused.value.kind) == (502, f"/problems/{kind}")


async def test_of_a_reply_that_was_cut_before_it_began_nothing_is_answered(model: Model):
    model.messages = [{"role": "assistant", "content": "", "reasoning_content": "hm"}]
    for finish in ("length", "content_filter"):
        model.finish = finish
        with pytest.raises(Problem) as failed:
            await reply(model.port, on_length="answer", on_content_filter="answer")
        assert "Nothing was stored." in failed.value.detail


async def test_a_model_without_tools_is_sent_none_and_told_the_time(model: Model):
    await replied(model.port, tools=False)
    (asked,) = model.requests
    assert "tools" not in asked
    told = asked["messages"][0]["content"]
    assert re.search(r"The time is \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\.", told)
    assert "get_current_time" not in told


async def test_a_tool_call_comes_back_to_the_server_as_it_sent_it(model: Model):
    signature = {"google": {"thought_signature": "c2lnbmVk"}}
    function = {"name": "get_current_time", "arguments": "{}"}
    call = {"id": "call-1", "type": "function", "function": function, "extra_content": signature}
    model.messages = [
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "The time, then."},
        {"role": "assistant", "content": "It is late."},
    ]
    await replied(model.port)
    asked, answer = model.requests[1]["messages"][-2:]
    assert asked["tool_calls"] == [call]
    assert asked["reasoning_content"] == "The time, then."
    assert (answer["role"], answer["tool_call_id"]) == ("tool", "call-1")


@pytest.mark.parametrize("arguments", [None, "", {}, "null", "{}", '{"zone": "UTC"}'])
async def test_arguments_of_any_form_are_understood(model: Model, arguments: object):
    call = {"id": None, "type": None, "function": {"name": "get_current_time", "arguments": arguments}}
    model.messages = [{"role": "assistant", "tool_calls": [call]}, {"role": "assistant", "content": "It is late."}]
    assert await replied(model.port) == "It is late."
    asked, answer = model.requests[1]["messages"][-2:]
    assert asked["tool_calls"][0]["id"] == answer["tool_call_id"]
    assert isinstance(asked["tool_calls"][0]["function"]["arguments"], str)
    assert answer["content"].endswith(" UTC")


async def test_arguments_that_are_no_object_are_told_to_the_model(model: Model):
    for arguments in ('{"zone": ', "{}{}", [1], "7"):
        call = {"id": "1", "function": {"name": "get_current_time", "arguments": arguments}}
        model.messages = [{"role": "assistant", "tool_calls": [call]}, {"role": "assistant", "content": "Sorry."}]
        model.requests = []
        assert await replied(model.port) == "Sorry."
        asked, answer = model.requests[1]["messages"][-2:]
        assert asked["tool_calls"][0]["function"]["arguments"] == "{}"
        assert "not a JSON object" in answer["content"]


async def test_the_line_of_the_log_has_the_cause_and_the_trace_but_nothing_of_the_user(
    model: Model, caplog: pytest.LogCaptureFixture
):
    said = {"error": {"message": "Input 'my-pin-is-4711' of Junaid, who likes books: model 'm' does not support tools"}}
    begin_trace()

    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response(said, status=400)

    model.answer_with = refuse
    with pytest.raises(Problem) as failed, caplog.at_level("WARNING"):
        await replied(model.port, "my-pin-is-4711")
    assert failed.value.kind == "/problems/model-without-tools"
    (line,) = [vars(record) for record in caplog.records]
    assert line["status"] == 400
    assert "does not support tools" in line["cause"]
    assert len(line["trace_id"]) == 32
    assert not any(word in str(line) for word in ("4711", "Junaid", "books"))


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
    "a content of parts that are no text": (
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
    (line,) = [vars(record) for record in caplog.records]
    assert (line["problem"], bool(line["cause"])) == ("model-failed", True)
    assert "SECRET" not in str(line)


async def test_a_summary_is_made_of_the_present_one_and_what_was_said(model: Model):
    model.messages = [{"role": "assistant", "content": " They spoke of tea. "}]
    options = ModelSettings(model_base_url=f"http://127.0.0.1:{model.port}/v1", dapr_http_port=1)
    async with DaprClient(1) as dapr:
        client = ModelClient(options, dapr)
        agent = ChatAgent(client, 5.0, 32_000)
        assert await agent.summarize("They met.", (("I like tea", "Good"),)) == "They spoke of tea."
        model.messages = [{"role": "assistant", "content": ""}]
        with pytest.raises(ModelFailed):
            await agent.summarize("They met.", (("I like tea", "Good"),))
        await client.close()
    assert "Present summary: They met.\nNew messages:\nUser: I like tea\nAssistant: Good" in str(
        model.requests[0]["messages"][1]["content"]
    )
