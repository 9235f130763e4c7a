"""Turns that arrive at a constant rate, whether or not earlier ones are answered: the open loop.

In a closed loop a system that stalls is asked less: while it stands still nobody sends, and the stall is one slow
request among thousands ("coordinated omission"). People do not know of each other and do not wait for that. Here a turn
that is due is sent, and its latency counts from the moment it was due, so that a stall shows in every turn that it held
up, also where the generator itself came late.
"""

import random
import time
from typing import Final

from gevent import GreenletExit
from gevent.pool import Group
from locust import task

from actor_load import ids
from actor_load.options import Options
from actor_load.users.answers import report
from actor_load.users.turns import CUT_OFF, ChatUser, Person

DUE: Final = "turn (due)"
IN_FLIGHT: Final = 1000
"""Turns of one stream that may wait for their answers; beyond it the generator would only fill its memory."""

NOT_SENT: Final = f"not sent: {IN_FLIGHT:,} in flight"
CONNECTION_SECONDS: Final = 5.0
"""Connections are renewed as often, so that turns reach pods that came later."""

GRACE: Final = 0.9
"""At the end of a run, turns in flight have this share of ``--stop-timeout``; those without an answer by then have
failed."""


class Population:
    """The people of one process, who speak in turn: with many of them nobody has two turns open at once."""

    def __init__(self, share: ids.Share) -> None:
        self._share = share
        self._people: list[Person] = []
        self._next = 0

    def speaks(self, size: int) -> Person:
        """Who speaks next, of as many people as ``size``; each is made when first asked for."""
        if len(self._people) < size:
            self._people.append(Person(self._share.own()))
            return self._people[-1]
        self._next = (self._next + 1) % len(self._people)
        return self._people[self._next]


class Arrivals(ChatUser):
    """One stream of turns, evenly spaced, ``--arrival-rate`` a second; streams do not start together."""

    abstract = False
    concurrency = IN_FLIGHT

    def on_start(self) -> None:
        """The first turn is due within one interval."""
        self._options = Options.of(self.environment)
        share = ids.share(self.environment)
        self._population = share.common(Population)
        # A worker that came during the run has no part of them: it speaks for one person more.
        self._size = max(1, len(share.numbers(self._options.arrival_users)))
        self._interval = 1 / self._options.arrival_rate
        self._due = time.perf_counter() + random.random() * self._interval  # noqa: S311 - no secret
        self._connected = self._due
        self._open: dict[int, float] = {}
        self._sent = 0
        self._turns = Group()

    def wait_time(self) -> float:
        """Seconds until the next turn is due."""
        return max(0.0, self._due - time.perf_counter())

    @task
    def arrive(self) -> None:
        """Sends what is due."""
        now = time.perf_counter()
        if now - self._connected > CONNECTION_SECONDS:
            self._connected = now
            self.connect_anew()
        while self._due <= now:
            if len(self._open) < IN_FLIGHT:
                self._sent += 1
                self._open[self._sent] = self._due
                self._turns.spawn(self._turn, self._sent, self._due)
            else:  # it would have waited longer than the oldest of them has
                report(self.environment, "POST", DUE, next(iter(self._open.values())), error=NOT_SENT)
            self._due += self._interval

    def on_stop(self) -> None:
        """Lets turns in flight finish."""
        try:
            self._turns.join(GRACE * self.environment.stop_timeout)
        finally:
            self._turns.kill()

    def _turn(self, number: int, due: float) -> None:
        person = self._population.speaks(self._size)
        try:
            self.chat(person, f"{person.user_id}-1", DUE, retries=self._options.retries, due=due)
        except GreenletExit:  # leaving it out would hide the slowest
            report(self.environment, "POST", DUE, due, error=CUT_OFF)
        finally:
            del self._open[number]
