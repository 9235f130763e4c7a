"""The agent: openai-agents with one tool, told of the user and of the conversation so far."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import openai
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, RunConfig, Runner, function_tool
from agents.exceptions import AgentsException
from daca_common.model import ModelClient, ModelKeyMissing
from daca_common.problems import Problem
from httpx2 import ConnectTimeout
from openai.types.responses import ResponseTextDeltaEvent

from chat_service.memory import Memory
from chat_service.session import MAX_TEXT

OnToken = Callable[[str], None]

RETRY_AFTER: Final = {"Retry-After": "5"}


@dataclass(frozen=True, slots=True)
class Context:
    """What the agent is told besides the message: the user's memory, the window (oldest first), what fell out of it."""

    memory: Memory
    window: tuple[tuple[str, str], ...]
    running_summary: str


@function_tool
def get_current_time() -> str:
    """The current time, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class ChatAgent:
    """Answers one message. Stateless: everything it knows is in the :class:`Context`."""

    def __init__(self, client: ModelClient, model: str, timeout_seconds: float) -> None:
        self._client = client
        self._model = model
        self._timeout_seconds = timeout_seconds
        # Traces go to OpenAI by default, which answers 401 to everyone without a key of theirs.
        self._run_config = RunConfig(tracing_disabled=True)
        # Without include_usage a streamed answer ends without its token counts.
        self._model_settings = ModelSettings(include_usage=True)

    async def reply(self, text: str, context: Context, on_token: OnToken | None = None) -> str:
        """The reply to ``text``; with ``on_token`` each piece is handed over as it comes.

        Raises:
            Problem: 503 (no key, model not reachable or too busy), 504 (too slow) or 502 (any other failure).
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                reply = await self._run(text, context, on_token)
        except ModelKeyMissing as error:
            raise Problem(503, str(error), kind="/problems/model-key-missing") from error
        except (TimeoutError, openai.OpenAIError, AgentsException) as error:
            raise self._problem(error) from error
        if not reply.strip() or len(reply) > MAX_TEXT:
            detail = "The model's reply was " + (
                "empty." if not reply.strip() else f"longer than {MAX_TEXT:,} characters."
            )
            raise Problem(502, detail + " Nothing was stored; send it again.", kind="/problems/model-failed")
        return reply

    def _problem(self, error: Exception) -> Problem:
        name = type(error).__name__
        # The aiohttp transport calls every failure to connect, a refusal too, a ConnectTimeout.
        unconnected = isinstance(error.__cause__, ConnectTimeout)
        if isinstance(error, (TimeoutError, openai.APITimeoutError)) and not unconnected:
            detail = f"The model did not answer within {self._timeout_seconds:g} s. Nothing was stored; send it again."
            return Problem(504, detail, kind="/problems/model-timeout")
        if isinstance(error, (openai.APIConnectionError, openai.RateLimitError)):
            detail = f"The model is not available ({name}). Nothing was stored; send it again."
            return Problem(503, detail, kind="/problems/model-unavailable", headers=RETRY_AFTER)
        detail = f"The model failed ({name}). Nothing was stored; send it again."
        return Problem(502, detail, kind="/problems/model-failed")

    async def _run(self, text: str, context: Context, on_token: OnToken | None) -> str:
        model = OpenAIChatCompletionsModel(model=self._model, openai_client=await self._client.get())
        agent = Agent(
            name="ChatAgent",
            instructions=instructions(context),
            tools=[get_current_time],
            model=model,
            model_settings=self._model_settings,
        )
        if on_token is None:
            return str((await Runner.run(agent, text, run_config=self._run_config)).final_output)
        run = Runner.run_streamed(agent, text, run_config=self._run_config)
        async for event in run.stream_events():
            if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
                on_token(event.data.delta)
        return str(run.final_output)


def instructions(context: Context) -> str:
    """The agent's instructions: name, style, both summaries and the window."""
    memory = context.memory
    brief = f"\nEarlier conversation in brief: {context.running_summary}" if context.running_summary else ""
    history = "\n".join(f"User: {user}\nAssistant: {reply}" for user, reply in context.window)
    return (
        f"You are a helpful chatbot. Respond in a {memory.preferred_style} way. "
        "If the user asks for the time, use the get_current_time tool. "
        f"The user's name is {memory.name}. User summary: {memory.user_summary}{brief}\n"
        f"Conversation history:\n{history or 'No prior conversation.'}"
    )
