"""From Locust's events to the record of a run.

Every process that runs users counts into a :class:`Tally`; workers send theirs with their reports. The process that
commands the run (a master, or Locust without workers) adds all of them up in a :class:`Recorder`.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

import gevent
import psutil
from locust.env import Environment
from locust.runners import MasterRunner

from actor_load import notes
from actor_load.abort import Watch
from actor_load.checker.told import Told
from actor_load.history import FINE_SECONDS, ROLL_SECONDS, roll_up
from actor_load.options import Options
from actor_load.phases import phases
from actor_load.record import (
    TURN_PREFIX,
    Event,
    EventKind,
    Failure,
    GeneratorSample,
    PhaseName,
    PlacementSample,
    Record,
    Second,
    Summary,
    rounded,
)

REPORT_SECONDS: Final = 1.0
"""How often a process counts up; workers' reports go to the master as often."""

MESSAGE_FIELD: Final = "actor_load"
"""Where a worker's tally is in its report to the master."""

ERROR_CHARACTERS: Final = 300


log = logging.getLogger(__name__)


class Tally:
    """What one process has counted since it was last asked."""

    def __init__(self, environment: Environment, process: str) -> None:
        """``process`` names it in the record."""
        self._environment = environment
        self._process = process
        self._self = psutil.Process()
        self._self.cpu_percent()  # the first call only sets the mark
        self._seconds: dict[tuple[int, str], _Bucket] = defaultdict(_Bucket)
        self._due: dict[tuple[int, str], _Bucket] = defaultdict(_Bucket)
        self._failures: Counter[tuple[str, str]] = Counter()
        environment.events.request.add_listener(self._on_request)

    def take(self) -> dict[str, Any]:
        """Seconds, what users were told, failures and a sample of the generator, as a message; counting starts anew."""
        seconds, self._seconds = self._seconds, defaultdict(_Bucket)
        due, self._due = self._due, defaultdict(_Bucket)
        failures, self._failures = self._failures, Counter()
        runner = self._environment.runner
        return {
            "seconds": [bucket.told(at, name) for (at, name), bucket in seconds.items()],
            "due": [bucket.told(at, name) for (at, name), bucket in due.items()],
            "told": notes.take(self._environment),
            "failures": [{"name": name, "error": error, "count": count} for (name, error), count in failures.items()],
            "generator": {
                "at": time.time(),
                "process": self._process,
                "cpu_cores": self._self.cpu_percent() / 100,
                "memory_bytes": self._self.memory_info().rss,
                "users": runner.user_count if runner and not isinstance(runner, MasterRunner) else 0,
            },
        }

    def _on_request(
        self, name: str, response_time: float, exception: Exception | None, start_time: float, **_: Any
    ) -> None:
        failed = exception is not None
        self._seconds[int(time.time()), name].count(response_time or 0, failed=failed)
        if name.startswith(TURN_PREFIX):
            self._due[int(start_time), name].count(response_time or 0, failed=failed)
        if failed:
            self._failures[name, f"{type(exception).__name__}: {exception}"[:ERROR_CHARACTERS]] += 1


class _Bucket:
    __slots__ = ("answered", "failed_ms", "latency_ms")

    def __init__(self) -> None:
        self.answered = 0
        self.latency_ms: Counter[float] = Counter()
        self.failed_ms: Counter[float] = Counter()

    def count(self, latency_ms: float, *, failed: bool) -> None:
        self.answered += 1
        (self.failed_ms if failed else self.latency_ms)[rounded(latency_ms)] += 1

    def told(self, at: int, name: str) -> dict[str, Any]:
        """As a :class:`Second`, in a message."""
        return {
            "at": at,
            "name": name,
            "answered": self.answered,
            "failed": self.failed_ms.total(),
            "latency_ms": dict(self.latency_ms),
            "failed_ms": dict(self.failed_ms),
        }


def report_to_master(environment: Environment, process: str) -> None:
    """In a worker: its tally goes along with every report."""
    tally = Tally(environment, process)

    def on_report(data: dict[str, Any], **_: Any) -> None:
        data[MESSAGE_FIELD] = tally.take()

    def on_start(**_: Any) -> None:
        tally.take()  # what came in after the last run's end

    environment.events.report_to_master.add_listener(on_report)
    environment.events.test_start.add_listener(on_start)


class Recorder:
    """The record of the run under way, in the process that commands it."""

    def __init__(self, environment: Environment, versions: Callable[[], Mapping[str, str]]) -> None:
        """``versions`` is asked at the start of each run."""
        self._environment = environment
        self._versions = versions
        self._distributed = isinstance(environment.runner, MasterRunner)
        self._tally = Tally(environment, "master" if self._distributed else "local")
        self.told = Told()
        """What those who chat were told, if the run is checked by it."""
        now = time.time()
        self._start(Record(title="", started=now, ended=now))
        environment.events.worker_report.add_listener(self._on_worker_report)
        gevent.spawn(self._count)

    def begin(self, options: Options, title: str, watch: Watch | None = None) -> None:
        """A new run starts; ``watch`` sees what is counted."""
        self._tally.take()
        self.told = Told()
        now = time.time()
        users = getattr(self._environment.parsed_options, "num_users", None)
        settings = {
            "target": self._environment.host or "",
            "user classes": ", ".join(sorted(user.__name__ for user in self._environment.user_classes)),
            **({"users": str(users)} if users else {}),
            **{name: str(value) for name, value in options.model_dump(exclude_defaults=True).items()},
        }
        versions = dict(self._versions())
        self._start(Record(title=title, started=now, ended=now, settings=settings, versions=versions), watch)

    def _start(self, record: Record, watch: Watch | None = None) -> None:
        self.record = record
        self._phases = phases(record)
        self._seconds: dict[tuple[int, str], Second] = {}
        self._due: dict[tuple[int, str], Second] = {}
        self._failures: dict[tuple[str, str], Failure] = {}
        self._watch = watch
        self._rolled = record.started

    def finish(self) -> Record:
        """The run is over; its record, to which what is counted and seen later is not added.

        It is no copy, as a long run's would not fit beside it. What comes later has a record of its own.
        """
        self._add(self._tally.take())
        record = self.record
        record.ended = time.time()
        for seconds in (record.seconds, record.due):
            seconds.sort(key=lambda second: (second.at, second.name))
        self._start(Record(title="", started=record.ended, ended=record.ended, placement=list(record.placement)))
        return record

    def event(self, kind: EventKind, text: str, phase: PhaseName | None = None) -> None:
        """Notes what happens now; the log tells it, too, to those who wait."""
        log.info("%s: %s", kind, text)
        self.record.events.append(Event(at=time.time(), kind=kind, text=text, phase=phase))
        self._phases = phases(self.record)

    def sample(self, sample: PlacementSample) -> None:
        """Adds a look at placement."""
        self.record.placement.append(sample)

    def window(self, seconds: float) -> Summary:
        """The last full seconds of which all processes have reported."""
        ended = int(time.time() - (2 if self._distributed else 1) * REPORT_SECONDS)
        return self.record.summary(ended - seconds, ended)

    def due(self, started: float, ended: float) -> Summary:
        """Of the turns that were due from ``started`` to ``ended``, as far as they are answered by now."""
        seconds = [second for second in self.record.due if int(started) <= second.at < ended]
        return Summary.of(seconds, ended - started)

    def _count(self) -> None:
        while True:
            gevent.sleep(REPORT_SECONDS)
            self._add(self._tally.take())
            self.record.ended = time.time()
            if self._watch:
                self._watch.look(self.record.started, self.record.ended, self._phases)

    def _on_worker_report(self, data: dict[str, Any], **_: Any) -> None:
        if counted := data.get(MESSAGE_FIELD):
            self._add(counted)

    def _add(self, counted: dict[str, Any]) -> None:
        for kind, known, kept in (
            ("seconds", self._seconds, self.record.seconds),
            ("due", self._due, self.record.due),
        ):
            for item in counted[kind]:
                second = known.get((item["at"], item["name"]))
                if second is None:
                    second = known[item["at"], item["name"]] = Second(at=item["at"], name=item["name"])
                    kept.append(second)
                second.add(item)
                if self._watch:
                    self._watch.add(item, self._phases, due=kind == "due")
        if counted["told"]:
            self.told.add(counted["told"])
        for item in counted["failures"]:
            failure = self._failures.get((item["name"], item["error"]))
            if failure is None:
                failure = self._failures[item["name"], item["error"]] = Failure(
                    name=item["name"], error=item["error"], count=0
                )
                self.record.failures.append(failure)
            failure.count += item["count"]
        self.record.generator.append(GeneratorSample(**counted["generator"]))
        self._roll_up(time.time())

    def _roll_up(self, now: float) -> None:
        if now - self._rolled < ROLL_SECONDS:
            return
        self._rolled = now
        roll_up(self.record, now)
        # Seconds so old are complete. Should one be counted once more, it is added up the next time.
        self._seconds = {key: second for key, second in self._seconds.items() if second.at > now - FINE_SECONDS}
        self._due = {key: second for key, second in self._due.items() if second.at > now - FINE_SECONDS}
