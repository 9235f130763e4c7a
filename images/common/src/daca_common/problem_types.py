"""Every type of problem that the services answer with: what it means, and what to do about it.

The one catalogue. ``GET /problems/<name>`` of each service serves an entry, at the address that ``type`` gives;
docs/problems.md is the whole of it. A type has one status; 409 has one meaning: another message of the user came in
between.
"""

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

PREFIX: Final = "/problems/"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One type: its HTTP status, a title, what it means and what a client does about it."""

    status: int
    title: str
    meaning: str
    mend: str


PROBLEM_TYPES: Final[dict[str, ProblemType]] = {
    # The request cannot be taken as it is.
    "invalid-http": ProblemType(
        400, "Not HTTP", "The bytes of the request are no valid HTTP.", "Look at what sends it, and at what is between."
    ),
    "invalid-json": ProblemType(
        400,
        "Not JSON",
        "The body is no JSON text in UTF-8: `detail` says where. `NaN`, a number of thousands of digits, and objects "
        "in objects a thousand deep are not taken either.",
        "Send one JSON object in UTF-8, made by a JSON library.",
    ),
    "empty-text": ProblemType(400, "Empty message", "The text has nothing but white space.", "Say something."),
    "sidecar-only": ProblemType(
        401,
        "For the sidecar only",
        "Actor methods and events are delivered by the Dapr sidecar, which proves itself by a token.",
        "Call them through Dapr: `/v1.0/actors/...` of a sidecar.",
    ),
    "cors-refused": ProblemType(
        403,
        "Origin not allowed",
        "A browser asked whether a page of another origin may send a request, and it may not: `detail` says what of "
        "origin, method and headers is not allowed.",
        "Name the page's origin in `chatService.corsOrigins`.",
    ),
    "not-found": ProblemType(
        404, "Nothing here", "No route has this path.", "`/docs` lists the routes. Ids hold no slash, encoded or not."
    ),
    "no-dead-letter": ProblemType(
        404,
        "No such dead letter",
        "No dead letter has this id (any more).",
        "`GET /dead-letters` lists them.",
    ),
    "not-committed": ProblemType(
        404,
        "No such turn",
        "The turn whose events are asked for is not open and not committed.",
        "Send its message again under its key.",
    ),
    "method-not-allowed": ProblemType(
        405, "Wrong method", "The path does not take this method.", "The header `Allow` names those that it takes."
    ),
    "not-acceptable": ProblemType(
        406,
        "No such representation",
        "The header `Accept` leaves none of the media types that the answer comes in; `detail` names them.",
        "Ask for one of them, or send no `Accept`.",
    ),
    "busy": ProblemType(
        409,
        "Another message is being answered",
        "`when_busy` is `reject`, and a message of the same user is being answered. Nothing was stored.",
        "Send it again under the same key when the other is answered, or let it `wait`.",
    ),
    "interrupted": ProblemType(
        409,
        "Another message took its place",
        "A later message of the same user came with `when_busy` `interrupt`. Nothing was stored.",
        "Send it again under the same key, if it still matters.",
    ),
    "overtaken": ProblemType(
        409,
        "Overtaken by other messages",
        "The conversation changed each time this message was answered. Nothing was stored.",
        "Send it again under the same key.",
    ),
    "cancelled": ProblemType(
        410,
        "Cancelled",
        "The turn was cancelled before it was committed. Nothing was stored.",
        "To say it after all, send it under a new key.",
    ),
    "too-large": ProblemType(
        413, "Too large", "The text, or the whole body, is larger than is taken.", "Send it in parts."
    ),
    "unsupported-media-type": ProblemType(
        415,
        "Not sent as JSON",
        "The header `Content-Type` is not `application/json` (or `application/...+json`), or the body is compressed.",
        "Send plain JSON with `Content-Type: application/json`.",
    ),
    "misdirected": ProblemType(
        421,
        "The session lives elsewhere",
        "Said between pods only: the user's session is not active where the message was handed to.",
        "None for clients, who never see it: the pod that asked looks for the session again.",
    ),
    "invalid-field": ProblemType(
        422,
        "Wrong field",
        "A field of the body, a header, a parameter or an id in the path is missing or wrong. `errors` names each, and "
        "`location` says where it is: `body`, `header`, `query` or `path`. A key that comes twice in an object, and "
        "half of a surrogate pair, are wrong fields, too.",
        "Mend the fields named.",
    ),
    "key-reused": ProblemType(
        422,
        "The key is another message's",
        "The `Idempotency-Key` was used for another text or another session. Nothing was stored.",
        "Use a new key for each message.",
    ),
    "malformed-event": ProblemType(
        422, "Malformed event", "The dead letter is no event, and stays none.", "Delete it when you have read it."
    ),
    "unstorable-event": ProblemType(
        422,
        "No place for the event",
        "So many other turns of the user have the event's number that its transcript has no place for it.",
        "Delete it when you have read it.",
    ),
    "too-many-waiting": ProblemType(
        429,
        "Too many messages wait",
        "`chatService.turn.queueLimit` messages of this user wait already. Nothing was stored.",
        "Send it again after `Retry-After` seconds.",
    ),
    "client-gone": ProblemType(
        499,
        "The client hung up",
        "Its client hung up before the message was committed. Nothing was stored.",
        "Send it again under the same key.",
    ),
    # The request is right, but could not be served.
    "unexpected": ProblemType(
        500,
        "Unexpected error",
        "A fault of the service. Its log has it under the trace id that the answer's header `Trace-Id` names.",
        "Report it, with the log.",
    ),
    "model-failed": ProblemType(
        502, "The model failed", "The model answered with an error, or with no reply. Nothing was stored.", "Try again."
    ),
    "backlog": ProblemType(
        503,
        "Events cannot be delivered",
        "The broker takes no events, and no more of this user's can be kept. Nothing was stored.",
        "Send it again after `Retry-After` seconds.",
    ),
    "draining": ProblemType(
        503, "The pod goes", "This pod is about to end. Nothing was stored.", "Send it again: another pod takes it."
    ),
    "erasure-unfinished": ProblemType(
        503,
        "Not wholly erased",
        "A part of the system did not answer while a user was erased.",
        "Send it again: it goes on where it ended.",
    ),
    "later-version": ProblemType(
        503,
        "Stored by a later release",
        "What is stored has a form that this release does not know.",
        "Update the service.",
    ),
    "memory-unavailable": ProblemType(
        503,
        "agent-memory-service does not answer",
        "What was asked for is kept by agent-memory-service, which could not be asked.",
        "Send it again after `Retry-After` seconds.",
    ),
    "model-key-missing": ProblemType(
        503,
        "No key for the model",
        "The secret with the model's key is missing, or has no such key. Nothing was stored.",
        "Make the secret that `detail` names; the next message is answered.",
    ),
    "model-unavailable": ProblemType(
        503,
        "The model is not available",
        "The model could not be reached, or is too busy. Nothing was stored.",
        "Send it again after `Retry-After` seconds.",
    ),
    "overloaded": ProblemType(
        503,
        "Too many messages",
        "This pod answers as many messages as it keeps up with. Nothing was stored.",
        "Send it again after `Retry-After` seconds.",
    ),
    "session-unreachable": ProblemType(
        503,
        "The session cannot be reached",
        "The user's session could not be asked. Nothing was stored.",
        "Send it again after `Retry-After` seconds.",
    ),
    "store-full": ProblemType(
        503,
        "The state store is full",
        "Redis has no memory for another write; reads go on. Nothing was stored.",
        "Its operator gives it memory: see operating.md, When Redis is full.",
    ),
    "store-unavailable": ProblemType(
        503,
        "The state store does not answer",
        "The state store cannot be reached, or is too busy.",
        "Send it again after `Retry-After` seconds.",
    ),
    "waited-too-long": ProblemType(
        503,
        "Waited too long",
        "The messages of the user before this one took longer than `chatService.turn.waitSeconds`. Nothing was stored.",
        "Send it again under the same key.",
    ),
    "key-expired": ProblemType(
        504,
        "The key is too old",
        "A turn was committed under this key longer ago than `chatService.turn.keySeconds`; its reply is no longer "
        "kept. The transcript has it.",
        "Use a new key for a new message.",
    ),
    "model-timeout": ProblemType(
        504,
        "The model is too slow",
        "The model did not answer within `model.timeoutSeconds`. Nothing was stored.",
        "Send it again under the same key.",
    ),
    "outcome-unknown": ProblemType(
        504,
        "Outcome unknown",
        "Whether the turn was committed could not be learnt.",
        "Send the same message under the `Idempotency-Key` that `detail` names: it is answered once.",
    ),
}
"""By name, the last part of ``type``; ordered by status."""


def page() -> str:
    """The whole catalogue as Markdown; docs/problems.md is this."""
    sections = "\n".join(_section(name) for name in PROBLEM_TYPES)
    return f"""# Problems

Every error is `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)):
`{{type, title, status, detail, errors?}}`. `detail` says what is wrong this time, and how to mend it; `errors` has
`{{field, location, detail}}` for each field that is wrong. `type` leads to what follows: each service serves the entry
at that address, and this page at `/problems`. It is made by
`.venv/bin/python -m daca_common.problem_types > docs/problems.md`.

What a status tells of a message: 4xx, and 5xx but for 504, that nothing was committed; 504 that it may be. 409 has one
meaning: another message of the same user came in between, and the same request may be sent again.

{sections}"""


def router() -> APIRouter:
    """``/problems`` and ``/problems/<name>``, where ``type`` leads."""
    router = APIRouter(prefix=PREFIX.rstrip("/"), include_in_schema=False)

    @router.get("")
    async def catalogue() -> PlainTextResponse:
        return PlainTextResponse(page())

    @router.get("/{name}")
    async def entry(name: str) -> PlainTextResponse:
        if name not in PROBLEM_TYPES:
            raise HTTPException(404)
        return PlainTextResponse(_section(name))

    return router


def _section(name: str) -> str:
    kind = PROBLEM_TYPES[name]
    return f"## {name}\n\n**{kind.status}, {kind.title}.** {kind.meaning}\n\nWhat to do: {kind.mend}\n"


if __name__ == "__main__":
    print(page(), end="")
