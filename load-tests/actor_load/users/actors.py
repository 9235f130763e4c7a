"""Load on actors: many activated at once, few that are hot, many that are cold, reads and writes."""

import itertools
import json
import random
from collections.abc import Iterator
from typing import Any, Final
from uuid import uuid4

from locust import task
from locust.exception import StopUser

from actor_load import ids
from actor_load.users.calls import ActorUser
from actor_load.users.visits import IDLE_SECONDS
from actor_load.users.walk import Walk

LOST_WRITE: Final = "lost write: an older history than one that was answered before"


class Storm:
    """The actors that the users of this process activate, each once."""

    def __init__(self, share: ids.Share) -> None:
        self._share = share
        self._walk: Walk | None = None
        self._left = 0

    def activate(self, user: ActorUser) -> bool | None:
        """Activates one more; ``False``: none is left, ``None``: those left are tried again later."""
        if self._walk is None:
            numbers = self._share.numbers(user.load_options.actors)
            self._walk, self._left = Walk(numbers), len(numbers)
        number = self._walk.step()
        if number is None:
            return None if self._left else False
        try:
            answered = user.visit(self._share.id(number)) is not None
        except BaseException:  # Locust ends the user in the middle
            self._walk.put_back(number)
            raise
        if answered or not self._walk.failed(number):
            self._left -= 1
        return True


class ActivationStorm(ActorUser):
    """Activates each of ``--actors`` once, as fast as the closed loop goes; then its users stop."""

    abstract = False

    def on_start(self) -> None:
        """Joins the others of this process."""
        self._storm = self.share.common(Storm)
        self._pause = 0.0

    def wait_time(self) -> float:
        """Seconds: none while there is something to activate."""
        return self._pause

    @task
    def activate(self) -> None:
        """Activates one actor."""
        activated = self._storm.activate(self)
        if activated is False:
            raise StopUser
        self._pause = 0.0 if activated else IDLE_SECONDS


class HotActors(ActorUser):
    """Calls a few actors again and again; they are the same on all workers."""

    abstract = False

    @task
    def call_hot(self) -> None:
        """Calls one of them."""
        number = random.randrange(self.load_options.hot_actors)  # noqa: S311 - no secret
        self.visit(self.share.id(number, "hot"), "BeginTurn (hot)")


class ColdActors(ActorUser):
    """Calls another actor each time, round and round through the worker's share of ``--actors``."""

    abstract = False

    def on_start(self) -> None:
        """Joins the others of this process."""
        self._round = self.share.common(_rounds)

    @task
    def call_cold(self) -> None:
        """Calls the next."""
        numbers = self.share.numbers(self.load_options.actors)
        if not numbers:
            raise StopUser
        self.visit(self.share.id(numbers[next(self._round) % len(numbers)]), "BeginTurn (cold)")


def _rounds(_: ids.Share) -> Iterator[int]:
    return itertools.count()


def _known(_: ids.Share) -> dict[int, int]:
    """Number of an actor -> highest sequence that it has answered."""
    return {}


class ReadsAndWrites(ActorUser):
    """Reads the history of actors, and writes to them, ``--write-share`` of the calls. What was answered once must be
    in every later answer."""

    abstract = False

    def on_start(self) -> None:
        """Joins the others of this process."""
        self._highest = self.share.common(_known)

    @task
    def read_or_write(self) -> None:
        """One call."""
        numbers = self.share.numbers(self.load_options.actors)
        if not numbers:
            raise StopUser
        number = random.choice(numbers)  # noqa: S311 - no secret
        if random.random() < self.load_options.write_share:  # noqa: S311
            self._write(number)
        else:
            self._read(number)

    def _read(self, number: int) -> None:
        answered = self._highest.get(number, 0)

        def is_older(history: Any) -> str:
            last = history[-1]["sequence"] if history else 0
            return LOST_WRITE if last < answered else ""

        self.call(self.share.id(number), "GetConversationHistory", check=is_older)

    def _write(self, number: int) -> None:
        actor_id = self.share.id(number)
        answered = self._highest.get(number, 0)
        arguments = {
            "turn_id": uuid4().hex,
            "session_id": f"{actor_id}-1",
            "user_text": "Please write this down.",
            "reply_text": "It is written.",
        }

        def is_older(commit: Any) -> str:
            return LOST_WRITE if commit["sequence"] <= answered else ""

        commit = self.call(actor_id, "AddMessage", json.dumps(arguments), check=is_older)
        if commit is not None:
            self._highest[number] = max(commit["sequence"], self._highest.get(number, 0))
