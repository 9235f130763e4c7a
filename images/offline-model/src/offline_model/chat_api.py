"""The OpenAI chat API in and out: requests checked, completions and chunks built, errors in its shape."""

import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Self

import orjson

from offline_model.conversation import Conversation
from offline_model.replies import ToolCall, answer

MODEL: Final = "offline"
"""The model that is listed. Requests may name any: the stand-in takes the place of whatever was configured."""

ROLES: Final = ("assistant", "developer", "system", "tool", "user")
CHARACTERS_PER_TOKEN: Final = 4
"""What usage is counted with; there is no tokenizer here."""

_PIECE: Final = re.compile(r"\S+\s*|\s+")


class ApiError(Exception):
    """An error in OpenAI's shape: ``{"error": {message, type, param, code}}``."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request. Sampling parameters are accepted and make no difference."""

    id: str
    """Hex digits of a hash of the body: the same request has the same ids."""
    model: str
    conversation: Conversation
    prompt_characters: int
    tools: frozenset[str]
    """The tools that may be called."""
    max_tokens: int | None
    stream: bool
    include_usage: bool

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Checks the body of a request.

        Raises:
            ApiError: 400 that names the parameter.
        """
        try:
            asked = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ApiError(400, f"The body is not valid JSON: {error}") from None
        if not isinstance(asked, dict):
            raise ApiError(400, "The body must be a JSON object.")
        model = _field(asked, "model", str)
        if not model:
            raise ApiError(400, "'model' must name a model.", param="model")
        messages = _messages(asked)
        _refuse_unsupported(asked)
        stream = bool(_field(asked, "stream", bool))
        options = _field(asked, "stream_options", dict)
        if options is not None and not stream:
            raise ApiError(400, "'stream_options' goes with 'stream': true only.", param="stream_options")
        return cls(
            id=blake2b(body, digest_size=12).hexdigest(),
            model=model,
            conversation=Conversation.of(messages),
            prompt_characters=sum(len(message["content"]) for message in messages),
            tools=_tools(asked),
            max_tokens=_max_tokens(asked),
            stream=stream,
            include_usage=bool(options and options.get("include_usage")),
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """What a request is answered with, before it has its form on the wire."""

    request: ChatRequest
    text: str | None
    tool: str | None
    finish_reason: str
    created: int

    @classmethod
    def of(cls, request: ChatRequest) -> Self:
        """Answers a request."""
        said = answer(request.conversation, request.tools)
        created = int(time.time())
        if isinstance(said, ToolCall):
            return cls(request, None, said.name, "tool_calls", created)
        if request.max_tokens is not None and _tokens(len(said)) > request.max_tokens:
            cut = said[: request.max_tokens * CHARACTERS_PER_TOKEN]
            return cls(request, cut, None, "length", created)
        return cls(request, said, None, "stop", created)

    def body(self) -> bytes:
        """The whole answer, for a request that does not stream."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text, "refusal": None}
        if self.tool is not None:
            message["tool_calls"] = [self._tool_call()]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        return orjson.dumps(self._envelope("chat.completion") | {"choices": [choice], "usage": self._usage()})

    def events(self) -> Iterator[bytes]:
        """The answer as server-sent events: the role, a word at a time, the end, the usage if asked for."""
        yield self._chunk({"role": "assistant", "content": None if self.tool else "", "refusal": None})
        if self.tool is not None:
            yield self._chunk({"tool_calls": [{"index": 0} | self._tool_call()]})
        for piece in _PIECE.findall(self.text or ""):
            yield self._chunk({"content": piece})
        yield self._chunk({}, self.finish_reason)
        if self.request.include_usage:
            yield _event(self._envelope("chat.completion.chunk") | {"choices": [], "usage": self._usage()})
        yield b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = self._envelope("chat.completion.chunk") | {"choices": [choice]}
        return _event(chunk | {"usage": None} if self.request.include_usage else chunk)

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.request.id}",
            "object": kind,
            "created": self.created,
            "model": self.request.model,
            "system_fingerprint": None,
        }

    def _tool_call(self) -> dict[str, Any]:
        return {
            "id": f"call_{self.request.id}",
            "type": "function",
            "function": {"name": self.tool, "arguments": "{}"},
        }

    def _usage(self) -> dict[str, int]:
        prompt = _tokens(self.request.prompt_characters)
        completion = _tokens(len(self.text or self.tool or ""))
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def models() -> bytes:
    """The answer to ``GET /v1/models``."""
    listed = {"id": MODEL, "object": "model", "created": 0, "owned_by": "daca"}
    return orjson.dumps({"object": "list", "data": [listed]})


def _event(payload: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def _tokens(characters: int) -> int:
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


_NAMES: Final = {str: "a string", bool: "true or false", dict: "an object", list: "a list", int: "a whole number"}


def _field(owner: Mapping[str, Any], name: str, kind: type, path: str = "") -> Any:
    """The value of a field that may be missing or null, if it is of ``kind``."""
    value = owner.get(name)
    if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise ApiError(400, f"'{path}{name}' must be {_NAMES[kind]}.", param=f"{path}{name}")
    return value


def _messages(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages, each with its role and its content as one text."""
    messages = _field(asked, "messages", list)
    if not messages:
        raise ApiError(400, "'messages' must be a list with at least one message.", param="messages")
    checked = [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]
    if not any(message["role"] == "user" for message in checked):
        raise ApiError(400, "'messages' must hold a message whose role is 'user'.", param="messages")
    return checked


def _message(message: object, path: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise ApiError(400, f"'{path}' must be an object.", param=path)
    role = message.get("role")
    if role not in ROLES:
        raise ApiError(400, f"'{path}.role' must be one of {', '.join(ROLES)}.", param=f"{path}.role")
    content = message.get("content")
    if content is None and role == "assistant":
        content = ""
    if isinstance(content, list):
        content = "".join(_part(part, f"{path}.content[{index}]") for index, part in enumerate(content))
    if not isinstance(content, str):
        raise ApiError(400, f"'{path}.content' must be a string or a list of text parts.", param=f"{path}.content")
    return {"role": role, "content": content}


def _part(part: object, path: str) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise ApiError(400, f"'{path}' must be a text part: the offline model reads nothing else.", param=path)


def _refuse_unsupported(asked: Mapping[str, Any]) -> None:
    """What would change the answer and is not done here is an error: better than being ignored."""
    if _field(asked, "n", int) not in {None, 1}:
        raise ApiError(400, "'n' must be 1: the offline model has one answer.", param="n")
    form = _field(asked, "response_format", dict)
    if form is not None and form.get("type") != "text":
        raise ApiError(400, "'response_format' must be of type 'text': that is all there is.", param="response_format")
    if asked.get("tool_choice") not in (None, "auto", "none"):
        detail = "'tool_choice' must be 'auto' or 'none': the offline model cannot be made to call a tool."
        raise ApiError(400, detail, param="tool_choice")


def _tools(asked: Mapping[str, Any]) -> frozenset[str]:
    names = set()
    for index, tool in enumerate(_field(asked, "tools", list) or ()):
        name = (
            tool["function"].get("name") if isinstance(tool, dict) and isinstance(tool.get("function"), dict) else None
        )
        if not isinstance(name, str):
            raise ApiError(400, f"'tools[{index}].function.name' must be a string.", param=f"tools[{index}]")
        names.add(name)
    return frozenset(names) if asked.get("tool_choice") != "none" else frozenset()


def _max_tokens(asked: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        limit = _field(asked, name, int)
        if limit is not None:
            if limit < 1:
                raise ApiError(400, f"'{name}' must be at least 1.", param=name)
            return int(limit)
    return None
