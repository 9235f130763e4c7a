"""The same chat on Dapr's state API: openai-agents with its DaprSession, through a sidecar. No actors."""

import os
from functools import cache

from agents.extensions.memory.dapr_session import DaprSession
from dapr.aio.clients import DaprClient
from fastapi import FastAPI, Request
from fastapi.responses import Response

from bench.peers.agent import Message, Reply, agent, answer

STORE = "statestore"

app = FastAPI()
_agent = agent()


@cache
def _dapr() -> DaprClient:
    return DaprClient(f"127.0.0.1:{os.environ['DAPR_GRPC_PORT']}")  # it belongs to the event loop it is made in


@app.post("/chat/", response_model=Reply)
async def chat(request: Request, message: Message) -> Reply | Response:
    """One turn."""
    session = DaprSession(message.user_id, state_store_name=STORE, dapr_client=_dapr())
    return await answer(request, message, _agent, session)
