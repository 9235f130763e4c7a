"""The ceiling above all: the call of the model, without an agent."""

from fastapi import FastAPI

from bench.peers.agent import INSTRUCTIONS, MODEL, Message, Reply, client

app = FastAPI()
_client = client()


@app.post("/chat/")
async def chat(message: Message) -> Reply:
    """One turn."""
    completion = await _client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": message.text}],
    )
    return Reply(user_id=message.user_id, reply=completion.choices[0].message.content or "")
