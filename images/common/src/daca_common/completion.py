"""What a server of the OpenAI chat API sends, read: whole answers and streams alike. Pure: nothing here waits.

Servers send all kinds of things under 200. Where there is only one way to understand an answer it is taken: a content
in parts, arguments as an object, ids that are missing, an emoji whose halves come in two pieces. Anything else is
:class:`Odd`. What this module does not look at (ids of answers, token counts, roles) may be anything.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import uuid4

import orjson

OnText = Callable[[str], None]

Finish = Literal["stop", "length", "content_filter"]

_FINISHES: Final[dict[str, Finish]] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "prohibited_content": "content_filter",
    "recitation": "content_filter",
}
"""By what servers call it in ``finish_reason``; every other word is an end of the model's own."""

_NAME: Final = re.compile(r"[\w-]+", re.ASCII)
"""What the API allows as a function's name. Some models let the marks of their format run into it."""

_MARK = b"\xef\xbb\xbf"
"""The byte order mark that may stand at the beginning."""

_OPEN, _CLOSE = "<think>", "</think>"


class Odd(Exception):
    """The answer can't be understood. The words say why and quote nothing of it."""


class Told(Exception):
    """The server tells of an error within an answer that looks like none."""

    def __init__(self, error: object) -> None:
        super().__init__("an error within a 200")
        self.error = error


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model asks for."""

    id: str
    name: str
    arguments: str | None
    """A JSON object as text; ``None`` where the model sent something else."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of the model."""

    text: str
    """Valid Unicode, without what the model said to itself first."""
    finish: Finish
    """Why it ended. A refusal without any text counts as ``content_filter``."""
    calls: tuple[ToolCall, ...]
    message: dict[str, Any]
    """The message as it goes back to the server together with what its tools said. Fields that this module does not
    know come back as they were sent: Gemini wants its thought signatures, others their reasoning."""


def parse(data: bytes) -> Any:
    """JSON of a server.

    Bytes that are no UTF-8 and halves of surrogate pairs are kept as such: the other half may come in the next piece.

    Raises:
        Odd: it is not JSON.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(data.decode("utf-8", "surrogateescape").removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        raise Odd("what came is not JSON") from None


class Events:
    """The data of server-sent events, out of pieces that may end anywhere."""

    def __init__(self) -> None:
        self.done = False
        """The server has said that there is nothing more."""
        self._rest = b""
        self._data: list[bytes] = []
        self._name = b""

    def feed(self, piece: bytes) -> Iterator[Any]:
        """The payloads that this piece completes.

        Raises:
            Odd, Told: one is not JSON, or is an event of the name ``error``.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if self.done:
                return
            yield from self._line(line.rstrip(b"\r").removeprefix(_MARK))

    def end(self) -> Iterator[Any]:
        """What is left when the connection ends: some servers leave out the last line end."""
        yield from self.feed(b"\n\n")

    def _line(self, line: bytes) -> Iterator[Any]:
        if line.startswith(b"data:"):
            self._data.append(line[5:].strip())
        elif line.startswith(b"event:"):
            self._name = line[6:].strip()
        elif not line and self._data:
            data, name = b"\n".join(self._data), self._name
            self._data, self._name = [], b""
            if data == b"[DONE]":
                self.done = True
            elif not data:
                pass  # a sign of life
            elif name == b"error":
                raise Told(_json_or_text(data))
            else:
                yield parse(data)


@dataclass(slots=True)
class _Call:
    """A tool call as it is put together."""

    index: int | None
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)


class Gathering:
    """Puts an answer together, from one whole message or from the pieces of a stream."""

    def __init__(self, on_text: OnText | None, *, streamed: bool) -> None:
        """``on_text`` is handed each piece of the text, as soon as it is sure to be one."""
        self._on_text = on_text
        self._streamed = streamed
        self._finish: str | None = None
        self._begun = False
        self._text: list[str] = []
        self._half = ""
        """Text whose last character has yet to be completed."""
        self._thoughts = _Thoughts()
        self._refusal: list[str] = []
        self._calls: list[_Call] = []
        self._more: dict[str, Any] = {}

    def add(self, payload: Any) -> None:
        """Takes an answer, or the next piece of one.

        Raises:
            Odd, Told: it is no answer.
        """
        if not isinstance(payload, dict):
            if isinstance(payload, list) and payload and isinstance(payload[0], dict) and "error" in payload[0]:
                raise Told(payload[0]["error"])  # Gemini's errors come in a list
            raise Odd(f"a JSON {_kind(payload)} in the place of an answer")
        if payload.get("error") or payload.get("object") == "error":
            raise Told(payload.get("error") or payload)
        match payload.get("choices"):
            case None | [] | [None, *_]:  # token counts, or what a filter says of the prompt
                return
            case [dict() as choice, *_]:
                self._add(choice)
            case other:
                raise Odd(f"choices are a JSON {_kind(other)}")

    def end(self) -> Completion:
        """The answer.

        Raises:
            Odd: there is none, or only a part of it.
        """
        if not self._begun:
            raise Odd(f"an answer without a message{self._ended()}")
        if self._streamed and self._finish is None:
            raise Odd("the stream ended before the reply did: no finish_reason came")
        if self._half:
            raise Odd("the text is not valid Unicode")
        self._tell(self._thoughts.end())
        text = "".join(self._text)
        finish = _FINISHES.get((self._finish or "").lower(), "stop")
        if not text and not self._calls and "".join(self._refusal):
            finish = "content_filter"
        if not text.strip() and not self._calls and finish == "stop":
            raise Odd(f"an empty answer{self._ended()}")
        calls = tuple(self._called())
        message: dict[str, Any] = {**self._more, "role": "assistant", "content": text or None}
        if calls:
            message["tool_calls"] = [
                {
                    **call.more,
                    "id": made.id,
                    "type": "function",
                    "function": {"name": made.name, "arguments": made.arguments or "{}"},
                }
                for call, made in zip(self._calls, calls, strict=True)
            ]
        return Completion(text, finish, calls, message)

    def _add(self, choice: dict[str, Any]) -> None:
        index = choice.get("index")
        if isinstance(index, int) and index > 0:
            return  # another answer to the same question; none was asked for
        if choice.get("error"):
            raise Told(choice["error"])
        finish = choice.get("finish_reason")
        if finish:
            self._finish = str(finish)
            if self._finish.lower() == "error":
                raise Odd("the model's server gave up in the middle: finish_reason is 'error'")
        message = choice.get("delta" if self._streamed else "message")
        if isinstance(message, dict):
            self._begun = True
            self._take(message)
        elif message is not None:
            raise Odd(f"a message that is a JSON {_kind(message)}")

    def _take(self, message: dict[str, Any]) -> None:
        for name, value in message.items():
            if value is None or name == "role":
                continue
            if name == "content":
                self._speak(value if isinstance(value, str) else self._of_parts(value))
            elif name == "refusal":
                self._refusal.append(str(value))
            elif name == "tool_calls":
                self._call(value)
            else:
                _merge(self._more, name, value)

    def _of_parts(self, content: Any) -> str:
        """The text of a content in parts. What a model thinks is a part of its own and none of its answer."""
        text = ""
        for part in content if isinstance(content, list) else [content]:
            match part:
                case str():
                    text += part
                case {"type": "refusal", "refusal": str(refusal)}:
                    self._refusal.append(refusal)
                case {"type": "thinking" | "reasoning"}:
                    pass
                case {"text": str(said)}:
                    text += said
                case _:
                    raise Odd("a content with a part that is no text")
        return text

    def _speak(self, piece: str) -> None:
        if self._half or not piece.isascii():
            whole = _whole(self._half + piece)
            if whole is None:
                self._half += piece
                return
            self._half, piece = "", whole
        self._tell(self._thoughts.feed(piece))

    def _tell(self, piece: str) -> None:
        if piece:
            self._text.append(piece)
            if self._on_text is not None:
                self._on_text(piece)

    def _call(self, calls: Any) -> None:
        if not isinstance(calls, list):
            raise Odd(f"tool calls that are a JSON {_kind(calls)}")
        for piece in calls:
            function = (piece.get("function") or {}) if isinstance(piece, dict) else None
            if not isinstance(function, dict):
                raise Odd("a tool call that is none")
            name = function.get("name")
            name = name if isinstance(name, str) else ""
            call = self._which(piece.get("index"), piece.get("id"), name)
            if name != call.name:  # some servers send it with each piece, some in pieces
                call.name += name
            arguments = function.get("arguments")
            if isinstance(arguments, str):
                call.arguments.append(arguments)
            elif arguments is not None:
                call.arguments = [json.dumps(arguments)]
            for key, value in piece.items():
                if key not in {"index", "id", "type", "function"} and value is not None:
                    _merge(call.more, key, value)

    def _which(self, index: Any, told_id: Any, name: str) -> _Call:
        """The call that a piece is of. Some servers count all calls as the first, some do not count."""
        call_id = told_id if isinstance(told_id, str) else ""
        index = index if isinstance(index, int) else None
        same = [call for call in self._calls if call.index == index]
        found = same[-1] if same else None
        if found is not None and self._streamed:
            another = bool(call_id) and bool(found.id) and call_id != found.id
            if not another and not (index is None and name and call_id != found.id):
                found.id = found.id or call_id
                return found
        call = _Call(index, call_id)
        self._calls.append(call)
        return call

    def _ended(self) -> str:
        reason = (self._finish or "")[:40]
        return f", finish_reason {reason!r}" if _NAME.fullmatch(reason) else ""

    def _called(self) -> Iterator[ToolCall]:
        ids: set[str] = set()
        for call in self._calls:
            name = _NAME.match(call.name.strip())
            if name is None:
                raise Odd("a tool call without a name")
            call_id = call.id if call.id and call.id not in ids else f"call_{uuid4().hex}"
            ids.add(call_id)
            yield ToolCall(call_id, name[0], _arguments("".join(call.arguments)))


class _Thoughts:
    """Takes away what a model says to itself before it answers: some servers leave it in the text, in tags."""

    def __init__(self) -> None:
        self._held: str | None = ""
        """What may still be such a thought; ``None`` once the answer has begun."""
        self._state: Literal["before", "inside", "after"] = "before"

    def feed(self, piece: str) -> str:
        if self._held is None:
            return piece
        self._held += piece
        if self._state == "before":
            begun = self._held.lstrip()
            if _OPEN.startswith(begun[: len(_OPEN)]) and len(begun) < len(_OPEN):
                return ""
            if not begun.startswith(_OPEN):
                return self.end()
            self._state, self._held = "inside", begun[len(_OPEN) :]
        if self._state == "inside":
            _, closed, rest = self._held.partition(_CLOSE)
            if not closed:
                self._held = self._held[-len(_CLOSE) :]
                return ""
            self._state, self._held = "after", rest
        self._held = self._held.lstrip()
        return self.end() if self._held else ""

    def end(self) -> str:
        """What was held back and is text after all."""
        held, self._held = self._held, None
        return held or "" if self._state != "inside" else ""


def _whole(text: str) -> str | None:
    """The text as valid Unicode, its characters' halves put together; ``None`` while one is missing."""
    try:
        text.encode()
    except UnicodeEncodeError:
        pass
    else:
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode()  # bytes, as ``parse`` keeps them
    except UnicodeError:
        pass
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeError:
        return None


def _arguments(text: str) -> str | None:
    if not text.strip() or text.strip() == "null":
        return "{}"
    try:
        return text if isinstance(orjson.loads(text), dict) else None
    except orjson.JSONDecodeError:
        return None


def _merge(target: dict[str, Any], name: str, value: Any) -> None:
    """Adds a piece of a field that this module does not know: text goes on, and so do lists."""
    known = target.get(name)
    both = (known, value)
    if all(isinstance(one, str) for one in both) or all(isinstance(one, list) for one in both):
        value = known + value
    target[name] = value


def _json_or_text(data: bytes) -> object:
    try:
        told = parse(data)
    except Odd:
        return data.decode("utf-8", "replace")
    return told.get("error") or told if isinstance(told, dict) else told


def _kind(value: object) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "truth value", type(None): "null"}
    return names.get(type(value), "number")
