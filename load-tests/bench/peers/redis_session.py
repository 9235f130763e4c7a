"""A chat without Dapr: FastAPI, openai-agents, and its RedisSession for the history."""

import os

import redis.asyncio as redis
from agents import Runner
from agents.extensions.memory.redis_session import RedisSession
from fastapi import FastAPI

from bench.peers.agent import Message, Reply, agent

app = FastAPI()
_agent = agent()
_redis = redis.from_url(os.environ["REDIS_URL"])


@app.post("/chat/")
async def chat(message: Message) -> Reply:
    """One turn."""
    session = RedisSession(message.user_id, redis_client=_redis)
    result = await Runner.run(_agent, message.text, session=session)
    return Reply(user_id=message.user_id, reply=str(result.final_output))
