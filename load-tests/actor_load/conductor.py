"""The one load shape of the locustfile: plays a shape or a scenario, and ends every run.

A run ends when its plan does: first all users are let go, so that no turn is cut off and none is missing from the
record, then Locust stops.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from locust import LoadTestShape
from locust.env import Environment
from locust.runners import MasterRunner

from actor_load.errors import LoadError

GAVE_UP: Final = 2
"""Exit code of a run that did not begin, or could not go on."""

LEAVE_SECONDS: Final = 40.0
"""How long users may take to leave: a turn may wait 30 s for the one before it."""

DONE_TICKS: Final = 5
"""Nobody is there for so many ticks: workers report their users each second, some of them late."""

Tick = tuple[int, float]
"""Users, and how many of them start or stop in a second."""

log = logging.getLogger(__name__)


class Plan(Protocol):
    """Decides the load of one run. Nobody else keeps its time: Locust leaves ``--run-time`` to a shape."""

    def tick(self, run_time: float) -> Tick | None:
        """The load now, ``run_time`` seconds into the run; ``None`` ends it."""


class Conductor(LoadTestShape):
    """Makes a :class:`Plan` for each run and asks it once a second, as Locust asks a shape."""

    abstract = True  # Locust would instantiate it, were it found in a locustfile

    use_common_options = True

    def __init__(self, environment: Environment, plan: Callable[[], Plan]) -> None:
        """``plan`` makes the plan of a run; the options may have changed since the last, in the web UI."""
        super().__init__()
        self.runner = environment.runner
        self._environment = environment
        self._make = plan
        self._plan: Plan | None = None
        self._leaving_since: float | None = None
        self._ended = False
        self._asked_for = 0
        self._ticks_without = 0
        environment.events.test_stop.add_listener(self._on_stop)

    def end(self) -> None:
        """Ends the run under way as its plan would, and every later one."""
        self._ended = True

    def leave(self) -> None:
        """Ends the run under way as its plan would; a later one is not touched."""
        self._leaving_since = self._leaving_since or time.monotonic()

    def tick(self) -> Any:
        """What Locust wants from a shape. It never raises: that would leave the run without an end."""
        try:
            return self._tick()
        except LoadError as error:
            give_up(self._environment, error)
            return None

    def _tick(self) -> Tick | None:
        if isinstance(self.runner, MasterRunner) and not self.runner.worker_count:
            raise LoadError("no worker has connected to this master: start some with --worker --master-host")
        if self._plan is None:
            self._plan = self._make()
            self.reset_time()  # making it may take a while: the target is looked at
        users = self.get_current_user_count()
        over = self._leaving_since or self._ended or self._all_done(users)
        target = None if over else self._plan.tick(self.get_run_time())
        if target is not None:
            self._asked_for = target[0]
            return target
        self._leaving_since = self._leaving_since or time.monotonic()
        if users and time.monotonic() - self._leaving_since < LEAVE_SECONDS:
            return 0, float(users)
        return None

    def _all_done(self, users: int) -> bool:
        """Whether all users have stopped by themselves: those of a storm do when every actor is activated."""
        self._ticks_without = self._ticks_without + 1 if self._asked_for and not users else 0
        return self._ticks_without >= DONE_TICKS

    def _on_stop(self, **_: Any) -> None:
        # Every way a run can end comes by here; the next one gets a plan of its own.
        self._plan = self._leaving_since = None
        self._asked_for = self._ticks_without = 0


def give_up(environment: Environment, error: LoadError) -> None:
    """Says in one line why a run is no more; Locust ends with exit code 2."""
    log.error("error: %s", error)
    environment.process_exit_code = GAVE_UP
