"""Holds a conversation with an installed release, as `helm test` runs it: through the Services, without a sidecar.

Reads CHAT_URL, MEMORY_URL and MODEL_PROVIDER from the environment; stops with one line at the first wrong thing.
"""

import http.client
import json
import os
import sys
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

ARRIVAL_SECONDS = 60
"""How long events may take to reach the memory service; a redelivered one takes about half a minute."""


class Wrong(Exception):
    """What is wrong, in one line."""


def call(method: str, base_url: str, path: str, body: object = None) -> Any:
    """One request; the JSON of its answer."""
    url = urlsplit(base_url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=90)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read().decode()
    except OSError as error:
        raise Wrong(f"{method} {base_url}{path}: {error}") from error
    finally:
        connection.close()
    if response.status >= 300:
        raise Wrong(f"{method} {path} answered {response.status}: {answer}")
    return json.loads(answer) if answer else None


def say(chat_url: str, user_id: str, text: str, session_id: str | None = None) -> tuple[str, str]:
    """Sends a message; the reply, and the session's id."""
    message: dict[str, object] = {"user_id": user_id, "text": text}
    if session_id is not None:
        message["metadata"] = {"session_id": session_id}
    answer = call("POST", chat_url, "/chat/", message)
    print(f"  {user_id}: {text}\n  reply: {answer['reply']}")
    if not answer["reply"].strip():
        raise Wrong("the reply is empty")
    return str(answer["reply"]), str(answer["metadata"]["session_id"])


def expect(what: str, found: object, wanted: object) -> None:
    """Stops where ``found`` is not ``wanted``."""
    if found != wanted:
        raise Wrong(f"{what} is {found!r}, not {wanted!r}")


def transcript(memory_url: str, session_id: str, entries: int) -> list[dict[str, Any]]:
    """The session's transcript, once it has ``entries`` entries."""
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while True:
        history: list[dict[str, Any]] = call("GET", memory_url, f"/conversations/{session_id}")["history"]
        if len(history) >= entries:
            return history
        if time.monotonic() > deadline:
            raise Wrong(f"the transcript has {len(history)} entries after {ARRIVAL_SECONDS} s, not {entries}")
        time.sleep(0.5)


def hold(chat_url: str, memory_url: str, provider: str) -> None:
    """The conversation: a memory, two turns, the transcript, and a cleared history."""
    user_id = f"helm-test-{uuid.uuid4().hex[:12]}"
    known = {"name": "Ada", "preferred_style": "formal", "user_summary": "Ada tests charts."}
    print(f"The memory service learns who {user_id} is.")
    expect("status", call("POST", memory_url, f"/memories/{user_id}/initialize", known)["status"], "success")
    memory = call("GET", memory_url, f"/memories/{user_id}")
    for field, value in known.items():
        expect(f"{field} in the memory", memory[field], value)

    print(f"Two turns, answered by {provider}:")
    first = f"Hi there, my code word is {uuid.uuid4().hex[:8]}"
    reply, session_id = say(chat_url, user_id, first)
    question = "What did I say before?"
    second_reply, _ = say(chat_url, user_id, question, session_id)
    if provider == "offline" and first not in second_reply:
        raise Wrong("the second reply does not know the first message: the actor's history did not reach the model")

    print(f"The transcript of session {session_id} arrives.")
    said = [(entry["role"], entry["content"]) for entry in transcript(memory_url, session_id, 4)]
    expect(
        "the transcript",
        said,
        [("user", first), ("assistant", reply), ("user", question), ("assistant", second_reply)],
    )

    print("The history is cleared.")
    call("DELETE", chat_url, f"/chat/{user_id}/history")
    if provider == "offline" and first in say(chat_url, user_id, question)[0]:
        raise Wrong("the reply still knows a message from before the history was cleared")


if __name__ == "__main__":
    try:
        hold(os.environ["CHAT_URL"], os.environ["MEMORY_URL"], os.environ["MODEL_PROVIDER"])
    except Wrong as wrong:
        sys.exit(f"FAILED: {wrong}")
    print("All is well.")
