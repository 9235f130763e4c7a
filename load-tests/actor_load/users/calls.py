"""Calls of actors, straight through a Dapr sidecar."""

import os
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from locust.contrib.fasthttp import FastHttpUser
from locust.env import Environment
from locust.exception import StopTest

from actor_load import ids, notes
from actor_load.actors_api import method_path
from actor_load.options import Options, sidecar
from actor_load.users.answers import CONNECT_SECONDS, read

TOKEN: Final = "dapr-api-token"  # noqa: S105 - the name of a header

VISIT: Final = '{"turn_id": "visit", "claim": "visit"}'
"""Arguments of a ``BeginTurn`` that only asks where an actor lives. It writes no state; and as all ask under the same
turn and claim, it is granted however often it comes, and there is nothing to give back."""

_DONE: Final = frozenset({"granted", "committed", "replayed"})


class Place(NamedTuple):
    """Where an actor says it lives."""

    host: str
    """The pod's name."""
    activation: str
    """Another one for each activation of the actor."""


class ActorUser(FastHttpUser):
    """A Locust user that calls actors through the sidecar of its pod, or the one of ``--sidecar``."""

    abstract = True
    connection_timeout = CONNECT_SECONDS
    concurrency = 1

    def __init__(self, environment: Environment) -> None:
        """Ends the test where there is no sidecar."""
        self.load_options = Options.of(environment)
        # On the object: Locust sets the class's own to --host, where the chat is.
        self.host = sidecar(self.load_options)
        if not self.host:
            environment.process_exit_code = 2
            raise StopTest(
                f"{type(self).__name__} calls actors through a Dapr sidecar, and there is none: run it in the cluster "
                "(charts/load-tests), or name one with --sidecar"
            )
        super().__init__(environment)
        self.share = ids.share(environment)
        self._headers = headers()
        self._notes = notes.of(environment)

    def call(
        self,
        actor_id: str,
        method: str,
        arguments: str = "{}",
        *,
        name: str = "",
        check: Callable[[Any], str] | None = None,
    ) -> Any:
        """Calls a method with JSON arguments; its JSON answer, or ``None`` where the call failed, which is counted.

        An answer whose ``status`` is none of those of success is a failed call, and so is one of which ``check`` finds
        something wrong.
        """
        path, asked = method_path(self.load_options.actor_type, actor_id, method), time.time()
        with self.client.request(
            "POST", path, name=name or method, data=arguments, headers=self._headers, catch_response=True
        ) as response:
            answer = read(response)
            error = answer.error or _refusal(answer.body) or (check(answer.body) if check else "")
            if error:
                response.failure(error)
                return None
            response.success()
            if self._notes is not None and isinstance(answer.body, dict):
                self._notes.activation(actor_id, answer.body["activation_id"], answer.body["host"], asked, time.time())
            return answer.body

    def visit(self, actor_id: str, name: str = "") -> Place | None:
        """Asks an actor where it lives, which activates it; ``None`` where the call failed."""
        body = self.call(actor_id, "BeginTurn", VISIT, name=name)
        return None if body is None else Place(body["host"], body["activation_id"])


def headers() -> dict[str, str]:
    """What every call of a sidecar has."""
    token = os.environ.get("DAPR_API_TOKEN", "")
    return {"Content-Type": "application/json", **({TOKEN: token} if token else {})}


def _refusal(body: Any) -> str:
    """What is wrong with an answer of the actor, or nothing. ``GetConversationHistory`` answers a list."""
    if isinstance(body, list):
        return ""
    if not isinstance(body, dict):
        return "the answer is no object"
    if body.get("status") not in _DONE:
        return f"refused: {body.get('status')}"
    missing = [field for field in ("host", "activation_id") if not isinstance(body.get(field), str)]
    return f"the answer names no {missing[0]}" if missing else ""
