"""How a call of the model fails, and what each way asks for: the one list of them.

What a server says of its refusals is its own: each has codes and sentences of its kind. :func:`refused` reads them.
What it does not know is still a refusal or a failure, told as such, with the server's words in the log.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from daca_common.completion import Odd, parse

About = Literal["model", "answer", "text"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A way of failing."""

    name: str
    """The last part of the problem's type."""
    status: int
    """What a client is answered."""
    about: About
    """Whom it meets: whoever asks next (``model``), nobody in particular (``answer``), or whoever says the same again
    (``text``)."""
    detail: str
    """What is wrong and how to mend it."""
    passes: bool = False
    """Whether the same may be answered a little later, without anybody doing anything."""


FAILED: Final = Kind("model-failed", 502, "answer", "The model's server sent no answer that can be used.", passes=True)
BROKEN: Final = Kind("model-failed", 502, "model", "The model's server failed.", passes=True)
UNAVAILABLE: Final = Kind("model-unavailable", 503, "model", "The model is not available.", passes=True)
TIMEOUT: Final = Kind("model-timeout", 504, "model", "The model did not answer in time.", passes=True)
KEY_MISSING: Final = Kind("model-key-missing", 503, "model", "The model's API key is missing.")
KEY_REFUSED: Final = Kind(
    "model-key-refused",
    502,
    "model",
    "The model's server does not take the API key: it is wrong, has expired, or may not use this model. Put a valid "
    "one into the secret (k8s-secrets/README.md says how); it is taken up without a restart.",
)
QUOTA: Final = Kind(
    "model-quota",
    502,
    "model",
    "The account at the model's provider has no quota left. Raise its limit or its balance there, or use another key, "
    "model.name or model.provider.",
)
NOT_FOUND: Final = Kind(
    "model-not-found",
    502,
    "model",
    "The model's server does not have the model, or is not where it is looked for. Load it there (`ollama pull`, "
    "`vllm serve`), or set model.name; model.baseUrl ends where /chat/completions begins, mostly in /v1.",
)
NO_TOOLS: Final = Kind(
    "model-without-tools",
    502,
    "model",
    "The model takes no tools. Set model.tools=false, use a model that does, or let its server take them (vLLM: "
    "--enable-auto-tool-choice and --tool-call-parser).",
)
CONTEXT: Final = Kind(
    "model-context-too-small",
    502,
    "text",
    "The conversation is longer than the model takes. Set model.contextTokens to no more than the model's context, or "
    "use a model with a larger one.",
)
UNTRUSTED: Final = Kind(
    "model-untrusted",
    502,
    "model",
    "The certificate of the model's server is not trusted. Name the CA that signed it in model.ca.",
)
MOVED: Final = Kind(
    "model-moved", 502, "model", "The model's server redirects to another address. Set model.baseUrl to that address."
)
REFUSED: Final = Kind(
    "model-refused", 502, "text", "The model, or a filter of its server, refused to answer this. Say it differently."
)
CUT: Final = Kind(
    "model-reply-cut",
    502,
    "text",
    "The model's reply was cut at its longest length. Ask for less, or set model.onLength=answer to get what there is.",
)
REJECTED: Final = Kind(
    "model-rejected",
    502,
    "text",
    "The model's server rejected the request, and would again. The service's log has its reason.",
)

RETRY_AFTER: Final = 5
"""Seconds, where the server names none."""

LONGEST_RETRY_AFTER: Final = 300


class ModelFailed(Exception):
    """No answer that can be used. As text it is the cause, for the log: it quotes neither user nor key."""

    def __init__(
        self, kind: Kind, cause: str, *, status: int | None = None, retry_after: int = RETRY_AFTER, detail: str = ""
    ) -> None:
        super().__init__(cause)
        self.kind = kind
        self.cause = cause
        self.status = status
        """Of the server's answer."""
        self.retry_after = retry_after
        """Seconds; it counts where the kind passes, except for an answer that was merely odd."""
        self.detail = detail or kind.detail


_BUSY: Final = frozenset({408, 409, 425, 429, 502, 503, 504, 522, 524, 529})
"""Statuses of servers, and of what stands before them, that are too busy or not up."""

_SAYS: Final[tuple[tuple[Kind, re.Pattern[str]], ...]] = tuple(
    (kind, re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL))
    for kind, *patterns in (
        (
            KEY_REFUSED,
            r"api.?key (?:not|is not|is) ?(?:in)?valid",
            r"api.?key (?:expired|not found)",
            r"invalid.?api.?key|api_key_invalid",
        ),
        (
            QUOTA,
            r"insufficient.?(?:quota|balance|credit|fund)|credit balance",
            r"plan and billing|billing_|exceeded your current quota",
        ),
        (
            NO_TOOLS,
            r"(?:tool|function.?call)\w*\b.*(?:support|enabled|requires\b)",
            r"support.*\b(?:tool|function.?call)",
        ),
        (
            CONTEXT,
            r"context.?(?:length|window|size)",
            r"(?:token|input|prompt|messages?)\b.*(?:exceed|too long|too large)",
        ),
        (
            NOT_FOUND,
            r"model\W.*(?:not found|does not exist|not exist|unknown|not loaded)",
            r"unknown model|model_not_found",
        ),
        (REJECTED, r"country|region|location|an HTML page"),  # where a 403 is not about the key
        (REFUSED, r"content.?(?:filter|policy)|responsibleai|safety system|usage polic"),
    )
)
"""In the order in which they count: by what servers say of it in codes and sentences."""

_BY_STATUS: Final = {401: KEY_REFUSED, 402: QUOTA, 403: KEY_REFUSED, 404: NOT_FOUND, 405: NOT_FOUND, 413: CONTEXT}
"""What a status says by itself, where the words say nothing that is known."""

_SECRETS: Final = re.compile(r"\bsk-[\w*.-]+|\bAIza[\w-]+|Bearer\s+\S+", re.IGNORECASE)
_WORD: Final = re.compile(r"\w+")
LONGEST_CAUSE: Final = 300


def refused(status: int, told: object, *, private: str, with_tools: bool, retry_after: str = "") -> ModelFailed:
    """What an answer of this status, or an error within a 200 (``status`` 200), says.

    ``told`` is the body as bytes, or what was found in the answer; ``private`` what must not be logged.
    """
    error = _error(told)
    said = _facts(error)
    status = _status(status, error)
    delay = re.fullmatch(r"(\d+)(?:\.\d+)?s?", retry_after or _google(error, "retryDelay"), re.ASCII)
    seconds = int(delay[1]) if delay else RETRY_AFTER
    return ModelFailed(
        _kind(status, said, with_tools=with_tools),
        f"{status} {_without(said, private)}".strip(),
        status=status,
        retry_after=min(max(seconds, 1), LONGEST_RETRY_AFTER),
    )


def _kind(status: int, said: str, *, with_tools: bool) -> Kind:
    for kind, pattern in _SAYS:
        if _may_be(kind, status, said, with_tools=with_tools) and pattern.search(said):
            return kind
    return _BY_STATUS.get(status) or (
        UNAVAILABLE if status in _BUSY else BROKEN if status >= 500 else REJECTED if status >= 400 else MOVED
    )


def _may_be(kind: Kind, status: int, said: str, *, with_tools: bool) -> bool:
    """Whether the words count: a server that is busy may speak of anything."""
    if kind is QUOTA:
        # A quota by the minute is a rate limit, whatever else the sentence says.
        a_minute = re.search(r"per.?min", said, re.IGNORECASE) and not re.search(r"per.?day", said, re.IGNORECASE)
        return status in {400, 403, 429} and not a_minute
    if kind is REJECTED:
        return status in {400, 403}
    return status not in _BUSY and status >= 400 and (with_tools or kind is not NO_TOOLS)


def _error(told: object) -> object:
    """The error object of a body: ``{error: ...}``, Gemini's ``[{error: ...}]``, vLLM's bare one, or text."""
    if isinstance(told, bytes):
        try:
            told = parse(told)
        except Odd:
            return told.decode("utf-8", "replace") if isinstance(told, bytes) else told
    if isinstance(told, list) and told:
        told = told[0]
    return told.get("error") or told if isinstance(told, Mapping) else told


def _facts(error: object) -> str:
    """Codes and sentences of an error."""
    if not isinstance(error, Mapping):
        return _text(error)
    inner = error.get("innererror")  # Azure's
    codes = [error.get(name) for name in ("code", "type", "status")]
    codes.append(inner.get("code") if isinstance(inner, Mapping) else None)
    told = [*dict.fromkeys(code for code in codes if isinstance(code, str))]
    words = _text(error.get("message") or error.get("detail"))
    return " ".join([*told, words, _google(error, "reason"), _google(error, "quotaId")]).strip()


def _google(error: object, name: str) -> str:
    """What Google's details of an error hold under a name: why, which quota, when to come again."""
    details = error.get("details") if isinstance(error, Mapping) else None
    found = []
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, Mapping):
            violations = detail.get("violations")
            found += [detail, *(violations if isinstance(violations, list) else ())]
    return " ".join(str(item[name]) for item in found if isinstance(item, Mapping) and item.get(name))


def _status(status: int, error: object) -> int:
    """The status that an error within a 200 stands for; without one it is the server's failure."""
    if status >= 300:
        return status
    code = error.get("code") if isinstance(error, Mapping) else None
    if isinstance(code, str) and code.isascii() and code.isdigit():
        code = int(code)
    return code if isinstance(code, int) and 300 <= code < 600 else 500


def _text(words: Any) -> str:
    """Words of a server; of a page of HTML only that it is one."""
    text = words if isinstance(words, str) else "" if words is None else str(words)
    return "an HTML page" if re.match(r"\s*<(?:!doctype|html)", text, re.IGNORECASE) else text


def _without(said: str, private: str) -> str:
    """What a server said, without what it may quote: words of the user, and keys."""
    known = private.casefold()

    def shown(word: re.Match[str]) -> str:
        told = word[0].casefold()
        tells = len(told) >= 4 or any(character.isdigit() or not character.isascii() for character in told)
        return "…" if tells and told in known else word[0]

    text = _WORD.sub(shown, _SECRETS.sub("…", said))
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    return text if len(text) <= LONGEST_CAUSE else text[:LONGEST_CAUSE] + "…"
