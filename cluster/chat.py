"""`make chat`: a small terminal chat against the cluster."""

import importlib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from rich.console import Console
from rich.text import Text

from cluster import screen
from cluster.client import Client
from cluster.errors import CommandError
from cluster.forward import Reach
from cluster.kube import Kube, api_errors
from cluster.target import recorded

HELP: Final = "/history  /clear  /quit (or Ctrl-D)"


def chat(requested: str, namespace: str, user_id: str) -> None:
    """Reads lines and shows answers until the user leaves."""
    with suppress(ImportError):  # a Python without it only lacks the editing of lines
        importlib.import_module("readline")
    kube = Kube(recorded(requested, namespace))
    with api_errors(), Reach(kube) as reach:
        Conversation(Client(reach), screen.console(), user_id).hold(input)


class Conversation:
    """One user's talk in a session of its own."""

    def __init__(self, client: Client, console: Console, user_id: str) -> None:
        self._client = client
        self._console = console
        self._user_id = user_id
        self._session_id = f"chat-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:6]}"

    def hold(self, read: Callable[[str], str]) -> None:
        """Takes lines from ``read``, which is given the prompt and raises EOFError at the end.

        Raises:
            CommandError: the services do not answer at all.
        """
        name = self._client.memory(self._user_id)["name"]
        self._say(f"You are {name} (user {self._user_id}), in session {self._session_id}. {HELP}")
        while True:
            try:
                line = read(f"{name}> ").strip()
            except (EOFError, KeyboardInterrupt):
                self._console.print()
                return
            if line == "/quit":
                return
            if line:
                self._answer(line)

    def _answer(self, line: str) -> None:
        try:
            if line == "/history":
                self._history()
            elif line == "/clear":
                self._client.clear(self._user_id)
                self._say("The session has forgotten what was said; the transcript has not.")
            elif line.startswith("/"):
                self._say(f"{line.split(maxsplit=1)[0]} is no command. {HELP}")
            else:
                self._show("chat", self._client.send(self._user_id, line, self._session_id)["reply"])
        except CommandError as error:
            self._say(str(error))
        except KeyboardInterrupt:
            self._say("Given up waiting; the answer may still be committed.")

    def _history(self) -> None:
        for entry in self._client.transcript(self._session_id):
            self._show(f"{entry['timestamp']} {entry['role']}", entry["content"])

    def _show(self, who: str, text: str) -> None:
        self._console.print(Text.assemble((f"{who}> ", "bold"), text))

    def _say(self, text: str) -> None:
        self._console.print(Text(text, style="dim"))
