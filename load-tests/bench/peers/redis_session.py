"""A chat without Dapr: FastAPI, openai-agents, and its RedisSession for the history."""

import os

import redis.asyncio as redis
from agents.extensions.memory.redis_session import RedisSession
from fastapi import FastAPI, Request
from fastapi.responses import Response

from bench.peers.agent import Message, Reply, agent, answer

app = FastAPI()
_agent = agent()
_redis = redis.from_url(os.environ["REDIS_URL"])


@app.post("/chat/", response_model=Reply)
async def chat(request: Request, message: Message) -> Reply | Response:
    """One turn."""
    return await answer(request, message, _agent, RedisSession(message.user_id, redis_client=_redis))
