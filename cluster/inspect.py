"""`make inspect USER=alice`: where a user's session actor lives, and its state."""

import json
import re
from typing import Any
from urllib.parse import quote

from daca_common.ids import ID_PATTERN
from rich.text import Text

from cluster import screen
from cluster.dapr import INJECTED, Sidecar
from cluster.errors import CommandError
from cluster.kube import Kube, Pod, api_errors
from cluster.target import recorded

CHAT_PODS = f"app.kubernetes.io/name=chat-service,{INJECTED}"


def inspect(requested: str, namespace: str, user_id: str) -> None:
    """Prints host, activation, history and the stored document of one user's actor."""
    if not re.match(ID_PATTERN, user_id):
        raise CommandError(f"USER={user_id!r} is no user id: letters, digits and . _ - @ +, at most 128", exit_code=2)
    kube = Kube(recorded(requested, namespace))
    console = screen.console()
    with api_errors():
        pods = kube.ready_pods(kube.target.namespace, CHAT_PODS)
        if not pods:
            raise CommandError("no chat-service pod is ready: `make status` shows them")
        host, activation_id, history = _asked(kube, pods[0], user_id)
        document = _document(kube, [pod for pod in pods if pod.metadata.name == host], user_id)
    console.print(f"UserSessionActor {user_id}: activation {activation_id} on pod {host}", markup=False)
    shown = screen.table("History (what the model is given)", "turn", "user", "reply")
    for exchange in history:
        shown.add_row(str(exchange["sequence"]), Text(exchange["user_text"]), Text(exchange["reply_text"]))
    console.print(shown)
    console.print(f"State document history-{user_id}:", markup=False)
    console.print_json(json.dumps(document), sort_keys=True)
    console.print(
        "The same for all of Dapr, in a browser, where the Dapr CLI is installed: dapr dashboard -k", markup=False
    )


def _asked(kube: Kube, pod: Pod, user_id: str) -> tuple[str, str, list[Any]]:
    with Sidecar(kube, pod) as sidecar:
        # A turn that does not exist holds no lease: the answer says so, names its host, and nothing changes.
        lease = sidecar.actor(user_id, "RenewTurn", {"turn_id": "inspect", "lease_token": ""})
        history = sidecar.actor(user_id, "GetConversationHistory")
    for answer in (lease, history):
        if answer.status != 200:
            raise CommandError(f"the actor of {user_id!r} does not answer: {answer.status} {answer.text.strip()}")
    told = lease.json()
    return told["host"], told["activation_id"], history.json()


def _document(kube: Kube, host: list[Pod], user_id: str) -> Any:
    """The stored document. Dapr gives an actor's state only at the sidecar where it is active."""
    for pod in host:
        with Sidecar(kube, pod) as sidecar:
            key = quote(f"history-{user_id}", safe="")
            answer = sidecar.call("GET", f"/v1.0/actors/UserSessionActor/{quote(user_id, safe='')}/state/{key}")
        if answer.status < 300:
            return answer.json()
    raise CommandError(f"the actor of {user_id!r} has just moved: try again")
