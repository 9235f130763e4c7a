"""People who chat: the closed loop. A person waits for the answer before the next message."""

import random
from typing import Final

import gevent
from locust import task

from actor_load import ids
from actor_load.options import Options, bounds
from actor_load.users.turns import ChatUser, Person

TURN: Final = "turn"
LONG: Final = "turn (long session)"
SECOND: Final = "turn (second text)"


class Conversation(ChatUser):
    """One person: sessions of several messages, with time to think between them. Now and then a second text follows
    at once, before the first is answered.

    A session has a connection of its own, so that people also reach pods that came after they did.
    """

    abstract = False
    concurrency = 2

    def on_start(self) -> None:
        """A person whom nobody has met."""
        self._options = Options.of(self.environment)
        self._think = bounds(self._options.think_time)
        self._messages = bounds(self._options.messages)
        self._person = Person(ids.share(self.environment).own())
        self._sessions = 0

    def wait_time(self) -> float:
        """Seconds to think."""
        return random.uniform(*self._think)  # noqa: S311 - no secret

    @task
    def session(self) -> None:
        """One session."""
        self.connect_anew()
        self._sessions += 1
        session_id = f"{self._person.user_id}-{self._sessions}"
        is_long = random.random() < self._options.long_share  # noqa: S311
        low, high = self._messages
        count = self._options.long_messages if is_long else random.randint(round(low), round(high))  # noqa: S311
        for number in range(max(1, count)):
            if number:
                self.wait()  # here Locust may end the user
            self._message(session_id, LONG if is_long else TURN)

    def _message(self, session_id: str, name: str) -> None:
        second = None
        if random.random() < self._options.double_share:  # noqa: S311
            second = gevent.spawn(self._say, session_id, SECOND)  # it starts when the first waits for its answer
        try:
            self._say(session_id, name)
            if second:
                second.join()
        finally:
            if second:
                second.kill(block=False)

    def _say(self, session_id: str, name: str) -> None:
        self.chat(self._person, session_id, name, retries=self._options.retries)
