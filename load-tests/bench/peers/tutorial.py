"""The chat of the tutorial that this project comes from, as it takes a message. Each step names the lines of the
tutorial's page ("Managing Stateful Interactions with Dapr Actors", tutorial 10) that it follows.

Left out is what costs time and does not belong to a message: its prints (290 to 400), debug log and ``--reload`` (456),
CORS (270), the key from the secret store, which it fetches once (261).
"""

import os
from typing import Any

import httpx2
from agents import Agent, Runner
from dapr.actor import Actor, ActorInterface, actormethod
from dapr.actor.id import ActorId
from dapr.actor.runtime.config import ActorReentrancyConfig, ActorRuntimeConfig, ActorTypeConfig
from dapr.actor.runtime.context import ActorRuntimeContext
from dapr.actor.runtime.runtime import ActorRuntime
from dapr.ext.fastapi import DaprActor
from fastapi import FastAPI

from bench.peers.agent import INSTRUCTIONS, Message, Reply, get_current_time, model

KEPT = 5  # 163
SHOWN = 3  # 335
MEMORY = "agent-memory-service"

app = FastAPI()
_actors = DaprActor(app)
_model = model()  # 262, 263: one client of the model for all messages


class SessionInterface(ActorInterface):
    """What the actor is asked."""

    @actormethod(name="AddMessage")  # 129
    async def add_message(self, message: dict[str, Any]) -> None:
        """Appends an exchange."""

    @actormethod(name="GetConversationHistory")  # 133
    async def history(self) -> list[dict[str, Any]]:  # type: ignore[empty-body]
        """The last exchanges."""


class UserSessionActor(Actor, SessionInterface):
    """A user's session; its state is the SDK's."""

    def __init__(self, ctx: ActorRuntimeContext, actor_id: ActorId) -> None:
        """As Dapr makes it."""
        super().__init__(ctx, actor_id)
        self._key = f"history-{actor_id.id}"  # 140

    async def _on_activate(self) -> None:
        found, _ = await self._state_manager.try_get_state(self._key)  # 146
        if not found:
            await self._state_manager.set_state(self._key, [])  # 149, 155

    async def add_message(self, message: dict[str, Any]) -> None:
        """Appends an exchange."""
        await self._state_manager.set_state(self._key, [*await self.history(), message][-KEPT:])  # 160 to 165

    async def history(self) -> list[dict[str, Any]]:
        """The last exchanges."""
        return list(await self._state_manager.get_state(self._key) or [])  # 173, 174


@app.on_event("startup")  # 254
async def register() -> None:
    """Tells the sidecar of the actor type."""
    reentrant = ActorTypeConfig(UserSessionActor.__name__, reentrancy=ActorReentrancyConfig(enabled=True))  # 248
    config = ActorRuntimeConfig()
    config.update_actor_type_configs([reentrant])
    ActorRuntime.set_actor_config(config)
    await _actors.register_actor(UserSessionActor)  # 258


@app.post("/chat/")
async def chat(message: Message) -> Reply:
    """One turn (403 to 420): history, what is known of the user, the model, append, event; one after the other."""
    user_id = message.user_id
    session_id = (message.metadata or {}).get("session_id", user_id)  # 408
    actor = f"actors/{UserSessionActor.__name__}/{user_id}/method"
    history = await _call("POST", f"{actor}/GetConversationHistory", {})  # 411, 361
    known = await _call("GET", f"invoke/{MEMORY}/method/memories/{user_id}")  # 329, 316
    reply = await _reply(message.text, known, history)  # 412
    await _call("POST", f"{actor}/AddMessage", {"user_text": message.text, "reply_text": reply})  # 413, 387
    event = {  # 297 to 303
        "user_id": user_id,
        "session_id": session_id,
        "event_type": "ConversationUpdated",
        "user_message": message.text,
        "assistant_reply": reply,
    }
    await _call("POST", "publish/pubsub/conversations", event)  # 414, 306
    return Reply(user_id=user_id, reply=reply)


async def _reply(text: str, known: dict[str, str], history: list[dict[str, str]]) -> str:
    said = "".join(f"User: {one['user_text']}\nAssistant: {one['reply_text']}\n" for one in history[-SHOWN:])  # 334
    instructions = (  # 338 to 343
        f"{INSTRUCTIONS}\nThe user: {known['name']}, who likes it {known['preferred_style']}. "
        f"{known['user_summary']}\nSo far:\n{said}"
    )
    agent = Agent[None](name="ChatAgent", instructions=instructions, tools=[get_current_time], model=_model)  # 349
    return str((await Runner.run(agent, text)).final_output)  # 350


async def _call(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    url = f"http://127.0.0.1:{os.environ['DAPR_HTTP_PORT']}/v1.0/{path}"
    async with httpx2.AsyncClient(timeout=60) as client:  # 304, 314, 358, 383: each call has a client of its own
        answer = await client.request(method, url, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None
