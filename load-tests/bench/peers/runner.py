"""A ceiling: the agent without any memory."""

from fastapi import FastAPI, Request
from fastapi.responses import Response

from bench.peers.agent import Message, Reply, agent, answer

app = FastAPI()
_agent = agent()


@app.post("/chat/", response_model=Reply)
async def chat(request: Request, message: Message) -> Reply | Response:
    """One turn."""
    return await answer(request, message, _agent, None)
