"""What is read of one user from outside, when nobody chats any more."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a transcript, as agent-memory-service has it."""

    role: str
    content: str
    user_id: str
    turn_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A message and its reply, as they are stored."""

    turn_id: str
    sequence: int
    session_id: str
    text: str
    reply: str


@dataclass(frozen=True, slots=True)
class State:
    """What chat-service says became of a turn."""

    status: Literal["committed", "not_committed", "open"]
    reply: str = ""
    session_id: str = ""
    sequence: int = 0


@dataclass
class Seen:
    """Of one user. What could not be read, or was not asked for, is not there, and nothing is said of it."""

    transcripts: dict[str, list[Entry]] = field(default_factory=dict)
    """Session -> its messages, oldest first."""
    history: list[Stored] | None = None
    """The actor's window, oldest first."""
    states: dict[str, State] = field(default_factory=dict)
    """Key -> what became of the turn."""
    unread: list[str] = field(default_factory=list)
    """Why something could not be read, a line each."""
