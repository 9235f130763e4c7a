"""What a request tells the model: the instructions that chat-service writes, and the messages."""

import re
from dataclasses import dataclass
from typing import Any, Final, Self

BRIEF: Final = "Earlier conversation in brief: "

_STYLE: Final = re.compile(r"Respond in an? (.{1,200}?) way\.")
_NAME: Final = re.compile(r"The user's name is (.{1,200}?)\. User summary: (.*)", re.DOTALL)
_SPEAKER: Final = re.compile(r"^(User|Assistant): ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One request, as a model would understand it. What it was not told is empty."""

    instructions: str
    """The system (or developer) messages, joined."""
    name: str
    style: str
    user_summary: str
    running_summary: str
    """What was said before the history begins."""
    earlier: tuple[str, ...]
    """The user's messages before the one to be answered, oldest first."""
    text: str
    """The message to be answered."""
    tool_result: str | None
    """What the tool answered, if it was called for this message."""

    @classmethod
    def of(cls, messages: list[dict[str, Any]]) -> Self:
        """Reads messages of the chat API whose contents are text."""
        instructions: list[str] = []
        said: list[str] = []
        tool_result = None
        for message in messages:
            role, content = message["role"], message["content"]
            if role in {"system", "developer"}:
                instructions.append(content)
            elif role == "user":
                said.append(content)
                tool_result = None
            elif role == "tool":
                tool_result = content
        told = "\n".join(instructions)
        header, _, running_summary = told.partition(BRIEF)
        style = _STYLE.search(header)
        name = _NAME.search(header)
        return cls(
            instructions=told,
            name=name[1] if name else "",
            style=style[1] if style else "",
            user_summary=name[2].strip() if name else "",
            running_summary=running_summary.strip(),
            earlier=tuple(said[:-1]),
            text=said[-1] if said else "",
            tool_result=tool_result,
        )


def messages_of_user(transcript: str) -> list[str]:
    """The user's messages in lines of ``User: ...`` and ``Assistant: ...``; a message may span lines."""
    parts = _SPEAKER.split(transcript)
    return [
        text.removesuffix("\n") for speaker, text in zip(parts[1::2], parts[2::2], strict=True) if speaker == "User"
    ]
