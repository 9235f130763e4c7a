"""The tutorial's memory service. Its page shows no code of it, only what it does (numbers: lines of that page): it is
asked what is known of a user (316), and with each event "updates history, and regenerates `user_summary`" (38, 429), so
an event is a history read and written, and the model asked for a summary that is written. Where the page does not say
how, it is done in the way that costs least: one client for all calls, and the summary of the last exchanges only.
"""

import os
from typing import Any

import httpx2
from agents import Agent, Runner
from fastapi import FastAPI

from bench.peers.agent import model

SUMMARISED = 10
"""Messages of the history that the summary is made of."""

app = FastAPI()
_state = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{os.environ['DAPR_HTTP_PORT']}/v1.0/state/", timeout=60)
_agent = Agent[None](name="Summary", instructions="Summarise what is known of this user.", model=model())


@app.get("/memories/{user_id}")
async def memory(user_id: str) -> dict[str, str]:
    """What is known of a user; of a new one (320 to 324), nothing yet."""
    new = {"name": user_id, "preferred_style": "casual", "user_summary": f"{user_id} is a new user."}
    return await _read(f"memory-{user_id}") or new


@app.post("/conversations")  # 38: of the topic `conversations`, by a declared subscription (79)
async def updated(event: dict[str, Any]) -> dict[str, str]:
    """One ``ConversationUpdated``."""
    said = event["data"]
    history = [
        *(await _read(f"history-{said['session_id']}") or []),
        {"role": "user", "content": said["user_message"]},
        {"role": "assistant", "content": said["assistant_reply"]},
    ]
    await _write(f"history-{said['session_id']}", history)  # 38: updates history
    result = await Runner.run(_agent, "\n".join(f"{one['role']}: {one['content']}" for one in history[-SUMMARISED:]))
    known = await memory(said["user_id"]) | {"user_summary": str(result.final_output)}
    await _write(f"memory-{said['user_id']}", known)  # 38: regenerates user_summary
    return {"status": "SUCCESS"}


async def _read(key: str) -> Any:
    answer = await _state.get(f"statestore/{key}")
    answer.raise_for_status()
    return answer.json() if answer.content else None


async def _write(key: str, value: Any) -> None:
    (await _state.post("statestore", json=[{"key": key, "value": value}])).raise_for_status()
