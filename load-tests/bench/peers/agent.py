"""The agent that all peers have: that of chat-service, without what it is told of the user."""

import os
from datetime import UTC, datetime
from typing import Any, Final

from agents import Agent, OpenAIChatCompletionsModel, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
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


def agent(instructions: str = INSTRUCTIONS) -> Agent[None]:
    """The agent, with its one tool."""
    model = OpenAIChatCompletionsModel(model=MODEL, openai_client=client())
    return Agent[None](name="ChatAgent", instructions=instructions, tools=[get_current_time], model=model)
