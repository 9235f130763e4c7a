"""Ids of a run, shared out between its workers: no two of them speak for the same user or actor.

When a test starts, the master tells each worker its place and how many there are. Locust's own ``worker_index`` does
not serve for that: it counts every worker that ever connected, so it has gaps once one has left. The message goes out
before the one that makes the worker spawn users, on the same ordered connection.

A run has a prefix of its own, so that no run meets what an earlier one left behind.
"""

import itertools
import re
import secrets
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import gevent
from locust.env import Environment
from locust.rpc import Message
from locust.runners import MasterRunner, WorkerRunner

from actor_load.errors import LoadError

_MESSAGE: Final = "ids"
_QUESTION: Final = "ids-please"

WAIT_SECONDS: Final = 10.0
"""How long a worker waits for its share."""

T = TypeVar("T")


class Share:
    """What one process of the load generator may call its own for one run."""

    def __init__(self, *, run: str, prefix: str, place: int, workers: int, worker: int) -> None:
        """``place`` of ``workers``, which is 0 for who has none: the master, and a worker that came during the run.
        ``worker`` is another number for every worker of the run, whenever it came."""
        self.run = run
        self._prefix = prefix
        self._place = place
        self._workers = workers
        self._worker = worker
        self._made = itertools.count()
        self._common: dict[Callable[[Share], Any], Any] = {}

    def numbers(self, count: int) -> range:
        """This worker's part of ``0 .. count - 1``. The workers' parts are disjoint and together complete."""
        return range(self._place, count, self._workers) if self._workers else range(0)

    def id(self, number: int, kind: str = "") -> str:
        """The id of an actor, the same on every worker: ``<prefix>-<number>``, or ``<prefix>-<kind>-<number>``."""
        return f"{self._prefix}-{kind}-{number}" if kind else f"{self._prefix}-{number}"

    def own(self) -> str:
        """The id of a user whom nobody has met: another one with each call, on every worker, in every run."""
        return f"{self.run}-user-{self._worker}-{next(self._made)}"

    def common(self, make: Callable[["Share"], T]) -> T:
        """What all Locust users of this process have in common during this run: made by the first that asks."""
        if make not in self._common:
            self._common[make] = make(self)
        made: T = self._common[make]
        return made


_shares: WeakKeyDictionary[Environment, Share] = WeakKeyDictionary()
_members: WeakKeyDictionary[Environment, dict[str, int]] = WeakKeyDictionary()


def register(environment: Environment, prefix: str = "") -> None:
    """Makes every run share out its ids; to be called once, when Locust has its runner (its event ``init``).

    With a ``prefix``, actors get the ids ``<prefix>-<number>`` in every run, and keep what they have stored.

    Raises:
        LoadError: ids that begin so are not legal.
    """
    if prefix and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}", prefix):
        raise LoadError(f"prefix {prefix!r}: up to 100 letters, digits and . _ - @ +, the first a letter or a digit")
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        runner.register_message(_MESSAGE, _receive)
        # A worker that comes during a run has users before it has this listener: it asks for what it missed.
        runner.send_message(_QUESTION)
    else:
        _Dealer(environment, prefix)


def share(environment: Environment) -> Share:
    """The share of this process in the present run, or the last one.

    Raises:
        LoadError: there was no run yet.
    """
    end = time.monotonic() + WAIT_SECONDS
    while environment not in _shares:
        if not isinstance(environment.runner, WorkerRunner) or time.monotonic() > end:
            raise LoadError("no ids are shared out: a locustfile calls actor_load.users.register when Locust starts")
        gevent.sleep(0.05)
    return _shares[environment]


def members(environment: Environment) -> dict[str, int]:
    """Who shares the ids of the present run: id of the worker, as the master sees it in a message -> its place."""
    return dict(_members.get(environment, {}))


class _Dealer:
    """Gives out the shares, in the process that commands the run."""

    def __init__(self, environment: Environment, prefix: str) -> None:
        self._environment = environment
        self._fixed = prefix
        self._run = self._prefix = ""
        environment.events.test_start.add_listener(self._on_start)
        environment.events.test_stop.add_listener(self._on_stop)
        if isinstance(environment.runner, MasterRunner):
            environment.runner.register_message(_QUESTION, self._on_question)

    def _on_start(self, **_: object) -> None:
        self._run = f"load-{secrets.token_hex(4)}"
        self._prefix = self._fixed or self._run
        runner = self._environment.runner
        if not isinstance(runner, MasterRunner):
            _members[self._environment] = {"local": 0}
            _shares[self._environment] = Share(run=self._run, prefix=self._prefix, place=0, workers=1, worker=0)
            return
        # The same workers as MasterRunner.start spawns users on.
        workers = [client.id for client in (*runner.clients.ready, *runner.clients.running, *runner.clients.spawning)]
        places = {worker: place for place, worker in enumerate(sorted(workers, key=runner.get_worker_index))}
        _members[self._environment] = places
        _shares[self._environment] = Share(run=self._run, prefix=self._prefix, place=0, workers=0, worker=-1)
        for worker in places:
            self._tell(runner, worker)

    def _on_stop(self, **_: object) -> None:
        _members.pop(self._environment, None)

    def _on_question(self, msg: Message, **_: object) -> None:
        runner = self._environment.runner
        if self._environment in _members and isinstance(runner, MasterRunner):
            self._tell(runner, msg.node_id)

    def _tell(self, runner: MasterRunner, worker: str) -> None:
        places = _members[self._environment]
        place = {"place": places.get(worker, 0), "workers": len(places) if worker in places else 0}
        data = {"run": self._run, "prefix": self._prefix, "worker": runner.get_worker_index(worker), **place}
        runner.send_message(_MESSAGE, data, worker)


def _receive(environment: Environment, msg: Message, **_: object) -> None:
    present = _shares.get(environment)
    if present is None or present.run != msg.data["run"]:  # told twice, it must not begin to count anew
        _shares[environment] = Share(**msg.data)
