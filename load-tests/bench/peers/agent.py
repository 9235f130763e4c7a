"""The agent that all peers have: that of chat-service, without what it is told of the user."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from agents.memory import Session
from fastapi import Request
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from openai import AsyncOpenAI
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel

MODEL: Final = "offline"
INSTRUCTIONS: Final = "You are a helpful chatbot. If the user asks for the time, use the get_current_time tool."


class Message(BaseModel):
    """What is posted."""

    user_id: str
    text: str
    metadata: dict[str, Any] | None = None


class Reply(BaseModel):
    """What it is answered with."""

    user_id: str
    reply: str


@function_tool
def get_current_time() -> str:
    """The current time, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def client() -> AsyncOpenAI:
    """The way to the model at MODEL_BASE_URL."""
    set_tracing_disabled(True)  # traces would go to OpenAI
    return AsyncOpenAI(api_key="none", base_url=os.environ["MODEL_BASE_URL"])


def model() -> OpenAIChatCompletionsModel:
    """The model, as an agent asks it."""
    return OpenAIChatCompletionsModel(model=MODEL, openai_client=client())


def agent() -> Agent[None]:
    """The agent, with its one tool."""
    return Agent[None](name="ChatAgent", instructions=INSTRUCTIONS, tools=[get_current_time], model=model())


async def answer(
    request: Request, message: Message, agent: Agent[None], session: Session | None
) -> Reply | StreamingResponse:
    """One turn: the reply, or its events where the client accepts a stream."""
    if "text/event-stream" in request.headers.get("accept", ""):
        return StreamingResponse(_events(message, agent, session), media_type="text/event-stream")
    result = await Runner.run(agent, message.text, session=session)
    return Reply(user_id=message.user_id, reply=str(result.final_output))


async def _events(message: Message, agent: Agent[None], session: Session | None) -> AsyncIterator[bytes]:
    result = Runner.run_streamed(agent, message.text, session=session)
    async for event in result.stream_events():
        if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
            yield format_sse_event(event="token", data_str=event.data.delta)
    yield format_sse_event(event="message", data_str=str(result.final_output))
