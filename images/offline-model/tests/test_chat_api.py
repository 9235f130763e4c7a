"""The chat API as its clients see it: the real OpenAI client, and openai-agents with a tool."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, RunConfig, Runner, function_tool
from daca_common.health import Health
from offline_model.main import create_app
from offline_model.settings import Settings
from openai import AsyncOpenAI
from support.serving import serving

HI: list[Any] = [{"role": "user", "content": "Hi there"}]
STREAMED: Any = {"model": "offline", "messages": HI, "stream": True}
TIME: list[Any] = [{"role": "user", "content": "What time is it?"}]
CLOCK: Any = {"type": "function", "function": {"name": "get_current_time", "parameters": {"type": "object"}}}


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with serving(create_app(Settings(), Health())) as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_a_completion_has_text_finish_reason_and_usage(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model="offline", messages=HI)
    (choice,) = completion.choices
    assert choice.message.content is not None
    assert choice.message.content.startswith("Hey there!")
    assert (choice.finish_reason, choice.message.role, choice.message.tool_calls) == ("stop", "assistant", None)
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == 2
    assert completion.usage.completion_tokens == -(-len(choice.message.content) // 4)
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert abs(completion.created - time.time()) < 60


async def test_the_same_request_has_the_same_answer(client: AsyncOpenAI) -> None:
    first, second = [await client.chat.completions.create(model="offline", messages=HI) for _ in range(2)]
    assert first.model_dump(exclude={"created"}) == second.model_dump(exclude={"created"})


async def test_a_stream_is_the_completion_in_pieces(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="offline", messages=HI)
    chunks = [
        chunk
        async for chunk in await client.chat.completions.create(
            model="offline", messages=HI, stream=True, stream_options={"include_usage": True}
        )
    ]
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len([piece for piece in pieces if piece]) > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_without_include_usage_has_none(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="offline", messages=HI, stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


async def test_a_stream_keeps_every_character(client: AsyncOpenAI) -> None:
    text = " \n\tspaces  and ünïcödé 🦊\u2028 \n "
    stream = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}], stream=True)
    assert text in "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def test_a_stream_is_server_sent_events_that_end_with_done(url: str) -> None:
    async with httpx2.AsyncClient() as client:
        answer = await client.post(
            f"{url}/v1/chat/completions", json={"model": "offline", "messages": HI, "stream": True}
        )
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])


async def test_a_tool_is_called_and_its_result_is_used(client: AsyncOpenAI) -> None:
    asked = await client.chat.completions.create(model="offline", messages=TIME, tools=[CLOCK])
    assert asked.choices[0].finish_reason == "tool_calls"
    assert asked.choices[0].message.content is None
    calls = asked.choices[0].message.tool_calls
    assert calls is not None
    (call,) = calls
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("get_current_time", "{}")
    result = {"role": "tool", "tool_call_id": call.id, "content": "half past nine"}
    messages = [*TIME, asked.choices[0].message.model_dump(), result]
    answered = await client.chat.completions.create(model="offline", messages=messages, tools=[CLOCK])
    assert answered.choices[0].finish_reason == "stop"
    assert "It is half past nine." in (answered.choices[0].message.content or "")


async def test_a_tool_call_is_streamed(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="offline", messages=TIME, tools=[CLOCK], stream=True)
    choices = [chunk.choices[0] async for chunk in stream]
    (call,) = [call for choice in choices for call in choice.delta.tool_calls or []]
    assert call.function is not None
    assert (call.index, call.function.name, call.function.arguments) == (0, "get_current_time", "{}")
    assert choices[-1].finish_reason == "tool_calls"


async def test_no_tool_is_called_where_none_may_be(client: AsyncOpenAI) -> None:
    answered = await client.chat.completions.create(model="offline", messages=TIME, tools=[CLOCK], tool_choice="none")
    assert answered.choices[0].message.tool_calls is None


async def test_content_may_come_in_text_parts(client: AsyncOpenAI) -> None:
    parts: Any = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]
    whole = await client.chat.completions.create(model="offline", messages=[{"role": "user", "content": parts}])
    assert "What's up?" in (whole.choices[0].message.content or "")


async def test_max_tokens_cuts_the_answer(client: AsyncOpenAI) -> None:
    cut = await client.chat.completions.create(model="offline", messages=HI, max_completion_tokens=2)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("Hey ther", "length")


async def test_the_models_are_listed(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["offline"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": HI}, "model"),
        ({"model": "", "messages": HI}, "model"),
        ({"model": 7, "messages": HI}, "model"),
        ({"model": "offline"}, "messages"),
        ({"model": "offline", "messages": []}, "messages"),
        ({"model": "offline", "messages": "Hi"}, "messages"),
        ({"model": "offline", "messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"model": "offline", "messages": ["Hi"]}, "messages[0]"),
        ({"model": "offline", "messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"model": "offline", "messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role"),
        ({"model": "offline", "messages": [{"role": ["user"], "content": "Hi"}]}, "messages[0].role"),
        ({"model": "offline", "messages": [{"role": "user"}]}, "messages[0].content"),
        ({"model": "offline", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            {"model": "offline", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0]",
        ),
        ({"model": "offline", "messages": HI, "stream": "yes"}, "stream"),
        ({"model": "offline", "messages": HI, "stream_options": {"include_usage": True}}, "stream_options"),
        ({"model": "offline", "messages": HI, "n": 2}, "n"),
        ({"model": "offline", "messages": HI, "n": True}, "n"),
        ({"model": "offline", "messages": HI, "max_tokens": 0}, "max_tokens"),
        ({"model": "offline", "messages": HI, "tools": {}}, "tools"),
        ({"model": "offline", "messages": HI, "tools": [{"type": "function"}]}, "tools[0]"),
        ({"model": "offline", "messages": HI, "tools": [CLOCK], "tool_choice": "required"}, "tool_choice"),
        ({"model": "offline", "messages": HI, "tools": [CLOCK], "tool_choice": CLOCK}, "tool_choice"),
        ({"model": "offline", "messages": HI, "response_format": {"type": "json_object"}}, "response_format"),
        ([], None),
    ],
)
async def test_a_wrong_request_is_a_400_that_names_the_parameter(url: str, body: object, param: str | None) -> None:
    async with httpx2.AsyncClient() as client:
        answer = await client.post(f"{url}/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert (param or "JSON object").split("[")[0] in error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b'{"model": "\xff"}', b'"\\ud800"'])
async def test_what_is_not_json_is_a_400(url: str, body: bytes) -> None:
    async with httpx2.AsyncClient() as client:
        answer = await client.post(f"{url}/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert "not valid JSON" in answer.json()["error"]["message"]


async def test_the_client_raises_what_a_wrong_request_means(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await client.chat.completions.create(model="offline", messages=[])
    assert raised.value.param == "messages"


async def test_a_body_that_is_too_large_is_a_413(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offline_model.main.MAX_BODY_BYTES", 100)
    async with httpx2.AsyncClient() as client:
        answer = await client.post(f"{url}/v1/chat/completions", json={"model": "offline", "messages": HI * 10})
    assert (answer.status_code, answer.json()["error"]["message"]) == (413, "The body is larger than 100 bytes.")


async def test_an_unknown_path_says_what_there_is(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions"):
        await client.responses.create(model="offline", input="Hi")


async def test_a_wrong_method_has_the_same_shape_of_error(url: str) -> None:
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"{url}/v1/chat/completions")
    assert answer.status_code == 405
    assert answer.json()["error"]["message"] == "Method Not Allowed"


async def test_the_welcome_says_what_this_is(url: str) -> None:
    async with httpx2.AsyncClient() as client:
        answer = await client.get(url)
    assert "stands in for a model" in answer.json()["message"]


async def test_it_is_ready_at_once(url: str) -> None:
    async with httpx2.AsyncClient() as client:
        probes = [await client.get(url + path) for path in ("/livez", "/readyz", "/healthz/app")]
    assert [probe.status_code for probe in probes] == [200, 200, 200]


async def test_latency_is_added_and_requests_wait_side_by_side() -> None:
    async with (
        serving(create_app(Settings(latency_ms=500), Health())) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client,
    ):
        start = time.perf_counter()
        await asyncio.gather(*(client.chat.completions.create(model="offline", messages=HI) for _ in range(5)))
    assert 0.5 <= time.perf_counter() - start < 5 * 0.5


@pytest.mark.parametrize(("rate", "failed"), [(0.0, []), (0.25, [4, 8]), (0.1, [10]), (1.0, list(range(1, 11)))])
async def test_the_error_rate_fails_evenly_spaced_requests(rate: float, failed: list[int]) -> None:
    async with (
        serving(create_app(Settings(error_rate=rate), Health())) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        seen = []
        for number in range(1, 11):
            try:
                await client.chat.completions.create(model="offline", messages=HI)
            except openai.InternalServerError as error:
                assert error.code == "error_rate"  # noqa: PT017
                seen.append(number)
    assert seen == failed


async def ask_to_fail(url: str, kind: str, seconds: float) -> int:
    async with httpx2.AsyncClient() as http:
        return (await http.post(f"{url}/faults", json={"kind": kind, "seconds": seconds})).status_code


async def read_stream(url: str, heard: list[bytes]) -> None:
    async with httpx2.AsyncClient() as http, http.stream("POST", f"{url}/v1/chat/completions", json=STREAMED) as answer:
        async for piece in answer.aiter_bytes():
            heard.append(piece)  # noqa: PERF401 - also when it breaks off


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_is_asked_to_refuse_answers_429_until_it_is_told_to_stop(
    url: str, client: AsyncOpenAI, stream: bool
) -> None:
    assert await ask_to_fail(url, "refuse", 60) == 200
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(model="offline", messages=HI, stream=stream)
    assert await ask_to_fail(url, "refuse", 0) == 200
    assert await client.chat.completions.create(model="offline", messages=HI, stream=stream)


async def test_a_model_that_is_asked_to_hang_answers_when_it_is_over(url: str, client: AsyncOpenAI) -> None:
    await ask_to_fail(url, "hang", 60)
    asked = asyncio.ensure_future(client.chat.completions.create(model="offline", messages=HI))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asked), 0.2)
    await ask_to_fail(url, "hang", 0.1)
    assert (await asked).choices


async def test_a_model_that_is_asked_to_break_off_ends_its_answers_early(url: str, client: AsyncOpenAI) -> None:
    await ask_to_fail(url, "break", 60)
    with pytest.raises(openai.APIConnectionError):
        await client.chat.completions.create(model="offline", messages=HI)
    heard: list[bytes] = []
    with pytest.raises(httpx2.RemoteProtocolError):
        await read_stream(url, heard)
    assert heard[0].startswith(b"data: ")
    assert b"[DONE]" not in b"".join(heard)


@pytest.mark.parametrize("asked", [{"kind": "explode", "seconds": 1}, {"kind": "hang", "seconds": -1}, {}])
async def test_a_failure_that_there_is_not_is_refused(url: str, asked: dict[str, Any]) -> None:
    async with httpx2.AsyncClient() as http:
        assert (await http.post(f"{url}/faults", json=asked)).status_code == 422


async def test_the_agents_runner_uses_a_tool(client: AsyncOpenAI) -> None:
    agent = Agent(
        name="test",
        instructions="You are a helpful chatbot. Respond in a formal way. The user's name is Junaid. User summary: x\n"
        "Earlier conversation in brief: Talked about: tea.",
        tools=[get_current_time],
        model=OpenAIChatCompletionsModel(model="offline", openai_client=client),
        model_settings=ModelSettings(include_usage=True),
    )
    config = RunConfig(tracing_disabled=True)
    run = await Runner.run(agent, "What time is it?", run_config=config)
    assert run.final_output == "Good day, Junaid. It is half past nine."
    assert run.context_wrapper.usage.requests == 2
    assert run.context_wrapper.usage.output_tokens > 0
    streamed = Runner.run_streamed(agent, "What time is it?", run_config=config)
    deltas = [
        event.data.delta
        async for event in streamed.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    assert "".join(deltas) == streamed.final_output == run.final_output
    assert streamed.context_wrapper.usage == run.context_wrapper.usage


@function_tool
def get_current_time() -> str:
    """The current time."""
    return "half past nine"
