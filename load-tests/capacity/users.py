"""What users leave in Redis: bytes and keys of each kind, by how many turns each has taken and how long these are.

Runs ours as `make local` does, with a state of its own.
"""

import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, TypeAlias

import redis
from bench import systems
from bench.long import Person

from cluster.local.layout import LOOPBACK, REDIS_PORT
from cluster.steps import say

USERS: Final = 50
"""With each length of messages."""
TURNS: Final = [5, 10, 20, 40]
CHARACTERS: Final = [50, 500]
AT_ONCE: Final = 16
LOOK_SECONDS: Final = 2.0
STILL_LOOKS: Final = 3
"""So many looks that see the same: all events have been delivered, all summaries are made."""
PAGE: Final = 1000

_KIND: Final = re.compile(r".*\|\|([a-z]+)-")
"""Dapr's own part of a key ends with ``||``; ours begins with its kind."""


@dataclass(frozen=True)
class Look:
    """All users of one length of messages have taken so many turns."""

    characters: float
    """Of a message and its reply, on the average."""
    turns: int
    """Each user has taken."""
    users: int
    stays: dict[str, int]
    """Bytes, as Redis' ``MEMORY USAGE`` counts, of keys without an end, by kind."""
    goes: dict[str, int]
    """The same of keys that go a day after their turn: the replies that a retry is answered with."""


def measure(users: int, turns: Sequence[int], characters: Sequence[int]) -> list[Look]:
    """A look at each number of ``turns``, which rise, with each length of messages."""
    with (
        tempfile.TemporaryDirectory(prefix="daca-bench-") as scratch,
        systems.local(Path(scratch)),
        redis.Redis(LOOPBACK, REDIS_PORT, decode_responses=True) as connection,
    ):
        url = systems.local_chat()
        people = {
            length: [Person(url, f"{_prefix(length)}{number:05}", length) for number in range(users)]
            for length in characters
        }

        def looks() -> Iterator[Look]:
            for count in turns:
                _talk(list(chain(*people.values())), count)
                for length, (stays, goes) in _still(connection, characters).items():
                    exchanged = sum(person.exchanged for person in people[length]) / count / users
                    each = (stays.total() + goes.total()) / users
                    say(f"{count} turns of {exchanged:.0f} characters: {each:,.0f} bytes a user")
                    yield Look(exchanged, count, users, dict(stays), dict(goes))

        return list(looks())


def _prefix(characters: int) -> str:
    """Of the ids of users whose messages are so long."""
    return f"c{characters}x"


def _talk(people: Sequence[Person], count: int) -> None:
    """Until each has sent so many messages."""

    def talks(person: Person) -> None:
        with closing(person):  # the next look may take longer than a connection is kept
            person.say_until(count)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(talks, people))


_Sizes: TypeAlias = tuple[Counter[str], Counter[str]]
"""Bytes of what stays, and of what goes, by kind."""


def _still(connection: "redis.Redis", characters: Sequence[int]) -> dict[int, _Sizes]:
    """Sizes by length of messages, as soon as they do not change any more."""
    seen: dict[int, _Sizes] = {}
    same = 0
    while same < STILL_LOOKS:
        time.sleep(LOOK_SECONDS)
        now = {length: _sizes(connection, _prefix(length)) for length in characters}
        seen, same = now, same + 1 if now == seen else 0
    return seen


def _sizes(connection: "redis.Redis", prefix: str) -> _Sizes:
    stays: Counter[str] = Counter()
    goes: Counter[str] = Counter()
    names = list(connection.scan_iter(f"*{prefix}*", count=PAGE))
    for first in range(0, len(names), PAGE):
        page = names[first : first + PAGE]
        with connection.pipeline(transaction=False) as pipeline:
            for name in page:
                pipeline.memory_usage(name, samples=0)
                pipeline.ttl(name)
            told = pipeline.execute()
        for name, size, seconds in zip(page, told[::2], told[1::2], strict=True):
            (goes if seconds >= 0 else stays)[kind_of(name)] += size or 0
    return stays, goes


def kind_of(key: str) -> str:
    """What a key of Redis holds, by its name."""
    found = _KIND.match(key)
    return found[1] if found else "other"
