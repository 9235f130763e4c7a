"""The flow of the tutorial that this project comes from: every user a Dapr actor, and three calls a turn (history,
model, append), with a new HTTP client for each."""

import os
from typing import Any

import httpx2
from agents import Runner
from dapr.actor import Actor, ActorInterface, actormethod
from dapr.actor.id import ActorId
from dapr.actor.runtime.context import ActorRuntimeContext
from dapr.ext.fastapi import DaprActor
from fastapi import FastAPI

from bench.peers.agent import INSTRUCTIONS, Message, Reply, agent

KEPT = 5

app = FastAPI()
_agent = agent()
_actors = DaprActor(app)


class SessionInterface(ActorInterface):
    """What the actor is asked."""

    @actormethod(name="AddMessage")
    async def add_message(self, message: dict[str, Any]) -> None:
        """Appends an exchange."""

    @actormethod(name="GetConversationHistory")
    async def history(self) -> list[dict[str, Any]]:  # type: ignore[empty-body]
        """The last exchanges."""


class UserSessionActor(Actor, SessionInterface):
    """A user's session."""

    def __init__(self, ctx: ActorRuntimeContext, actor_id: ActorId) -> None:
        """As Dapr makes it."""
        super().__init__(ctx, actor_id)
        self._key = f"history-{actor_id.id}"

    async def add_message(self, message: dict[str, Any]) -> None:
        """Appends an exchange."""
        await self._state_manager.set_state(self._key, [*await self.history(), message][-KEPT:])

    async def history(self) -> list[dict[str, Any]]:
        """The last exchanges."""
        found, history = await self._state_manager.try_get_state(self._key)
        return list(history) if found and history else []


@app.on_event("startup")
async def register() -> None:
    """Tells the sidecar of the actor type."""
    await _actors.register_actor(UserSessionActor)


@app.post("/chat/")
async def chat(message: Message) -> Reply:
    """One turn."""
    history = await _call(message.user_id, "GetConversationHistory", {}) or []
    said = "".join(f"User: {one['user_text']}\nAssistant: {one['reply_text']}\n" for one in history)
    result = await Runner.run(_agent.clone(instructions=f"{INSTRUCTIONS}\nConversation so far:\n{said}"), message.text)
    reply = str(result.final_output)
    await _call(message.user_id, "AddMessage", {"user_text": message.text, "reply_text": reply})
    return Reply(user_id=message.user_id, reply=reply)


async def _call(user_id: str, method: str, body: dict[str, Any]) -> Any:
    url = f"http://127.0.0.1:{os.environ['DAPR_HTTP_PORT']}/v1.0/actors/UserSessionActor/{user_id}/method/{method}"
    async with httpx2.AsyncClient(timeout=60) as client:
        answer = await client.put(url, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None
