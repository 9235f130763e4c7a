"""What the offline model says. The same request is always answered in the same words."""

import re
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from offline_model.conversation import Conversation, messages_of_user

TIME_TOOL: Final = "get_current_time"
FIRST_ANSWER: Final = "(I am the offline model; docs: README, 'A real model'.)"
"""Added to the first answer of a conversation, so that nobody takes this for a model."""

ABOUT_USER: Final = "Summarise what is known of the user"
ABOUT_CONVERSATION: Final = "Summarise the conversation"
NEW_MESSAGES: Final = "\nNew messages:\n"

QUOTE: Final = 200
"""Characters of a message that an answer quotes."""
TOPICS: Final = 5
TOPIC: Final = 60
SUMMARY: Final = 1000
"""Characters of a summary."""


class ToolCall(NamedTuple):
    """The model asks for a tool; none that it calls takes arguments."""

    name: str


class _Tone(NamedTuple):
    opening: str
    greeting: str


_TONES: Final = {
    "casual": _Tone("Hey {name}!", "What's up?"),
    "formal": _Tone("Good day, {name}.", "How may I be of assistance?"),
    "friendly": _Tone("Hello {name}, lovely to hear from you!", "What would you like to talk about?"),
    "concise": _Tone("{name}:", "Hello."),
}
_OTHER_TONE: Final = _Tone("Hello {name}, in a {style} way:", "What can I do for you?")


def answer(conversation: Conversation, tools: Collection[str]) -> str | ToolCall:
    """The answer, or a call of one of ``tools``."""
    if conversation.instructions.startswith(ABOUT_USER):
        return _summary(conversation.text, "Recent topics")
    if conversation.instructions.startswith(ABOUT_CONVERSATION):
        return _summary(conversation.text, "Talked about")
    said = _said(conversation, tools)
    if isinstance(said, ToolCall):
        return said
    opening = _tone(conversation).opening.format(name=_name(conversation), style=conversation.style)
    note = "" if conversation.earlier or conversation.running_summary else f" {FIRST_ANSWER}"
    return f"{opening} {said}{note}"


def _said(conversation: Conversation, tools: Collection[str]) -> str | ToolCall:
    if conversation.tool_result is not None:
        return f"It is {conversation.tool_result}."
    text = conversation.text.replace("\u2019", "'")
    for pattern, reply in _TOPICS:
        if pattern.search(text):
            return ToolCall(TIME_TOOL) if reply is _time and TIME_TOOL in tools else reply(conversation)
    return f'You said: "{_quoted(conversation.text)}". I am the offline model, so all I can do is say it back.'


def _recall(conversation: Conversation) -> str:
    if conversation.earlier:
        return f'Your last message was "{_quoted(conversation.earlier[-1])}".'
    if conversation.running_summary:
        return f"Before this: {conversation.running_summary}"
    return "You have not said anything before this."


def _recall_all(conversation: Conversation) -> str:
    if not conversation.earlier:
        return _recall(conversation)
    brief = f"Earlier: {conversation.running_summary} " if conversation.running_summary else ""
    return f"{brief}You said: " + ", ".join(f'"{_quoted(text)}"' for text in conversation.earlier) + "."


def _time(_: Conversation) -> str:
    return "I was given no tool that tells the time."


def _name_of_user(conversation: Conversation) -> str:
    return f"Your name is {conversation.name}." if conversation.name else "Nobody has told me your name."


def _about_user(conversation: Conversation) -> str:
    return conversation.user_summary or "Nobody has told me anything about you."


def _style(conversation: Conversation) -> str:
    return f"I respond in a {conversation.style} way." if conversation.style else "Nobody has asked me for a style."


def _about_itself(_: Conversation) -> str:
    return "I am the offline model: no network, no key, and the same answer to the same question."


def _greeting(conversation: Conversation) -> str:
    return _tone(conversation).greeting


def _pattern(expression: str) -> re.Pattern[str]:
    return re.compile(expression, re.IGNORECASE)


_TOPICS: Final[tuple[tuple[re.Pattern[str], Callable[[Conversation], str]], ...]] = (
    (_pattern(r"\bwhat (have|did) (we|i) (talk|been talking|chat|discuss|speak)"), _recall_all),
    (_pattern(r"\bwhat (did|have) i (just |last )?(say|said|tell|told|ask|asked|write|wrote|written)\b"), _recall),
    (_pattern(r"\bmy (last|previous) (message|question)\b"), _recall),
    (_pattern(r"\b(what('?s| is)? (the )?(current )?time|time is it|current time|tell me the time)\b"), _time),
    (_pattern(r"\b(what('?s| is) my name|who am i)\b"), _name_of_user),
    (_pattern(r"\b(know|remember|tell me) about me\b|\b(my|user) summary\b"), _about_user),
    (_pattern(r"\b(what|which) style\b"), _style),
    (_pattern(r"\b(who|what) are you\b|\b(what('?s| is) your name)\b"), _about_itself),
    (
        _pattern(r"^\W*(hi|hello|hey|hiya|greetings|howdy|good (morning|afternoon|evening|day)|salam)\b.{0,40}$"),
        _greeting,
    ),
)
"""What the model understands; the first that fits is answered."""


def _tone(conversation: Conversation) -> _Tone:
    return _TONES.get(conversation.style.lower(), _OTHER_TONE if conversation.style else _TONES["casual"])


def _name(conversation: Conversation) -> str:
    return conversation.name or "there"


def _quoted(text: str) -> str:
    return text if len(text) <= QUOTE else text[:QUOTE] + "…"


def _summary(text: str, label: str) -> str:
    """``text`` is ``Present summary: ...``, a line ``New messages:``, and a transcript.

    The present summary stays and the topics are added after ``label``; those a summary of ours ended with move on.
    """
    head, found, transcript = text.partition(NEW_MESSAGES)
    present = head.removeprefix("Present summary:").strip() if found else ""
    base, _, before = present.rpartition(f"{label}: ") if f"{label}: " in present else (present, "", "")
    topics = [*before.removesuffix(".").split("; "), *map(_topic, messages_of_user(transcript if found else text))]
    latest = list(dict.fromkeys(topic for topic in reversed(topics) if topic))[:TOPICS]
    if not latest:
        return base.strip()[:SUMMARY]
    ending = f"{label}: {'; '.join(reversed(latest))}."
    return f"{base.strip()[: SUMMARY - len(ending) - 1]} {ending}".strip()


def _topic(message: str) -> str:
    """A message as a topic: one line, cut, without what separates topics."""
    return " ".join(message.replace(";", ",").split())[:TOPIC].rstrip(" .?!,")
