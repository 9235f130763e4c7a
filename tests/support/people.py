"""People who chat while something happens: each wants every message answered, and in the transcript once."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from uuid import uuid4

from cluster import rest
from cluster.kube import wait_until

PEOPLE = 6
PAUSE_SECONDS = 0.2
MOST = 90
"""Messages of one person, whose transcript is one page."""
PATIENCE_SECONDS = 60


class Person:
    """Sends numbered messages, one after the other, each under a key until it is answered."""

    def __init__(self, system, user_id):
        self.user_id = user_id
        self.waits = []
        """Seconds until each was answered."""
        self._system = system

    def talk(self, done):
        while not done.wait(PAUSE_SECONDS) and len(self.waits) < MOST:
            self._say(f"message {len(self.waits)}")

    def was_heard(self):
        """Whether the transcript has every message, once and in order; it may come a little later."""
        sent = [f"message {number}" for number in range(len(self.waits))]
        return wait_until(lambda: self.said() == sent, PATIENCE_SECONDS)

    def said(self):
        """The transcript's messages."""
        history = self._system.memory("GET", f"conversations/{self.user_id}?limit=200").json()["history"]
        return [entry["content"] for entry in history if entry["role"] == "user"]

    def _say(self, text):
        body = {"user_id": self.user_id, "text": text, "metadata": {"session_id": self.user_id}}
        key, begun = uuid4().hex, time.monotonic()
        while not self._is_answered(body, key):
            assert time.monotonic() - begun < PATIENCE_SECONDS, f"{text} of {self.user_id} is not answered"
            time.sleep(0.1)
        self.waits.append(time.monotonic() - begun)

    def _is_answered(self, body, key):
        try:
            return self._system.chat(body, key=key).status == 200
        except rest.Unreachable:
            return False


@contextmanager
def conversations(system, user_id):
    """People who chat, before, while and after the block is run.

    ``system`` has the methods ``chat`` and ``memory`` of the fixture ``cluster``.
    """
    people = [Person(system, f"{user_id}-{number}") for number in range(PEOPLE)]
    done = Event()

    def go_on():
        wanted = [len(person.waits) + 5 for person in people]
        assert wait_until(
            lambda: all(len(person.waits) >= count for person, count in zip(people, wanted, strict=True)),
            PATIENCE_SECONDS,
        )

    with ThreadPoolExecutor(PEOPLE) as pool:
        talks = [pool.submit(person.talk, done) for person in people]
        try:
            go_on()
            yield people
            go_on()
        finally:
            done.set()
    for talk in talks:
        talk.result()


def slowest(people):
    """Seconds that the slowest answer took; printed, too."""
    found = max(wait for person in people for wait in person.waits)
    print(f"slowest of {sum(len(person.waits) for person in people)} turns: {found:.1f} s")
    return found
