"""A ceiling: the agent without any memory."""

from agents import Runner
from fastapi import FastAPI

from bench.peers.agent import Message, Reply, agent

app = FastAPI()
_agent = agent()


@app.post("/chat/")
async def chat(message: Message) -> Reply:
    """One turn."""
    result = await Runner.run(_agent, message.text)
    return Reply(user_id=message.user_id, reply=str(result.final_output))
