"""The main job on real input: a user of its own each run says two things, and the second answer knows the first."""

import secrets
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster import placement, screen
from cluster.client import Client
from cluster.errors import CommandError
from cluster.forward import Reach
from cluster.kube import Kube, wait_until

MEMORY: Final = {"name": "Junaid", "preferred_style": "casual", "user_summary": "Junaid likes books."}
MESSAGES: Final = ("Hi there", "What did I say before?")
TRANSCRIPT_SECONDS: Final = 60.0
"""An event that a dying pod of an earlier version took is given to another after half a minute."""


def run(kube: Kube, console: Console, model: str) -> str:
    """Holds the conversation and shows what each part of the system made of it; the id of its user.

    Raises:
        CommandError: a part did not do its job.
    """
    user_id = f"demo-{secrets.token_hex(3)}"
    _banner(console, model)
    with Reach(kube) as reach:
        client = Client(reach)
        client.initialise(user_id, MEMORY)
        first = client.send(user_id, MESSAGES[0])
        session_id = str(first["metadata"]["session_id"])
        second = client.send(user_id, MESSAGES[1], session_id)
        for text, answer in zip(MESSAGES, (first, second), strict=True):
            console.print(Text.assemble((f"{MEMORY['name']}: ", "bold"), text))
            console.print(Text.assemble(("chat: ", "bold"), str(answer["reply"])))
        if model == "offline" and MESSAGES[0] not in second["reply"]:
            raise CommandError(f"the second answer does not know the first message: {second['reply']!r}")
        console.print(_transcript(client, session_id))
        console.print(_memory(user_id, client.memory(user_id)))
    console.print(placement.table(placement.rows(kube)))
    return user_id


def _banner(console: Console, model: str) -> None:
    if model == "offline":
        console.rule("The offline model answers: deterministic, no key, no network")
        console.print("For Gemini: GEMINI_API_KEY=<your key> make up MODEL=gemini", markup=False)
    else:
        console.rule(f"{model} answers")


def _transcript(client: Client, session_id: str) -> Table:
    entries: list[Any] = []

    def complete() -> bool:
        entries[:] = client.transcript(session_id)
        return len(entries) >= 2 * len(MESSAGES)

    if not wait_until(complete, TRANSCRIPT_SECONDS):
        raise CommandError(
            f"the transcript of session {session_id} has {len(entries)} entries instead of {2 * len(MESSAGES)} after "
            f"{TRANSCRIPT_SECONDS:.0f} s: events do not get through"
        )
    shown = screen.table(f"Transcript of session {session_id}", "at", "who", "said")
    for entry in entries:
        shown.add_row(entry["timestamp"], entry["role"], Text(entry["content"]))
    return shown


def _memory(user_id: str, memory: Mapping[str, Any]) -> Table:
    shown = screen.table(f"Memory of {user_id}", "what", "value")
    for name, value in memory.items():
        shown.add_row(name, Text(str(value)))
    return shown
