"""Ties the parts to one Locust process: a worker only counts, the process that commands the run does all else."""

import logging
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import gevent
import locust
import locust.runners
from flask import Response, jsonify, request
from gevent.lock import BoundedSemaphore
from locust import User
from locust.env import Environment
from locust.runners import WorkerRunner
from locust.web import WebUI

from actor_load import preflight, recorder, report, scenarios, users, web
from actor_load.abort import Watch
from actor_load.checker import verification
from actor_load.checker.reader import Reader, Sources
from actor_load.cluster import HostDeployment
from actor_load.conductor import GAVE_UP, Conductor, Plan
from actor_load.errors import LoadError
from actor_load.options import DEFAULT_RUN_SECONDS, DEFAULT_USERS, Options, sidecar
from actor_load.placement.observer import Observer, Watched
from actor_load.placement.stream import PlacementStream
from actor_load.record import Check, Record, Section
from actor_load.recorder import Recorder
from actor_load.report import terminal
from actor_load.scenario import NONE
from actor_load.scenarios.stage import Stage
from actor_load.shapes import Shape, StepsToKnee, shape
from actor_load.users import calls, visits
from actor_load.users.arrivals import Arrivals
from actor_load.users.calls import ActorUser
from actor_load.users.conversation import Conversation
from actor_load.users.turns import ChatUser
from actor_load.users.visits import Visits
from actor_load.verdict import judge

LAST_REPORTS_SECONDS: Final = 2.0
"""After a run in the web UI the workers' last reports come in."""

log = logging.getLogger(__name__)


def attach(environment: Environment, web_ui: WebUI | None = None, **_: Any) -> None:
    """Listener of Locust's ``init``: a wrong option or target ends Locust with one line and exit code 2."""
    # Read at every report, also of workers: a chart over seconds needs them every second.
    locust.runners.WORKER_REPORT_INTERVAL = recorder.REPORT_SECONDS
    try:
        if isinstance(environment.runner, WorkerRunner):
            users.register(environment)
            recorder.report_to_master(environment, environment.runner.client_id)
        else:
            Commander(environment, web_ui)
    except LoadError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


class Commander:
    """The process that commands the runs: it has the record, the placement view, the plan, the verdict."""

    def __init__(self, environment: Environment, web_ui: WebUI | None) -> None:
        """Raises :class:`LoadError` for what can't be run at all."""
        self._environment = environment
        options = Options.of(environment)
        if getattr(environment.parsed_options, "class_picker", False):
            raise LoadError("--class-picker would take the load shape away: name user classes on the command line")
        self._headless = web_ui is None
        if options.report:
            report.check(Path(options.report))
        self._named = bool(getattr(environment.parsed_options, "user_classes", None))
        self._observer = _observer(options)
        self._recorder = Recorder(environment, self._versions)
        users.register(environment)
        self._rounds = visits.Rounds(environment)
        self._stage: Stage | None = None
        self._shape: Shape | None = None
        self._unfinished = False
        self._terminated = self._verifying = False
        self._finishing = BoundedSemaphore()
        self._aborted: Check | None = None
        self._choose_users(options)
        if self._headless:
            self._look(options)  # before workers are waited for
        self._conductor = environment.shape_class = Conductor(environment, self._plan)
        # Locust's own handler comes only after the run, where it starts one by itself.
        gevent.signal_handler(signal.SIGTERM, self._on_terminate)
        environment.events.test_stop.add_listener(self._on_stop)
        environment.events.quitting.add_listener(self._on_quitting)
        self._stream: PlacementStream | None = None
        if self._observer:
            self._stream = PlacementStream(Watched.model_validate(options), self._recorder.sample, self._recorder.event)
        if web_ui:
            _refuse_bad_forms(web_ui, environment)
            web.attach(environment, lambda: self._recorder.record.placement)

    def _choose_users(self, options: Options) -> None:
        """The classes that are run: those named; else people who chat, or what the scenario wants."""
        environment = self._environment
        playing = options.scenario != NONE
        named = [user for user in environment.user_classes if self._named and user is not Visits]
        Visits.fixed_count = visits.VISITORS if playing else 0
        load: list[type[User]] = named or [Arrivals if playing else Conversation]
        if not sidecar(options) and (needing := [user for user in load if issubclass(user, ActorUser)]):
            raise LoadError(
                f"{needing[0].__name__} calls actors through a Dapr sidecar, and there is none: run it in the cluster "
                "(charts/load-tests), or name one with --sidecar"
            )
        environment.user_classes = [*load, *([Visits] if playing else [])]

    def _look(self, options: Options) -> None:
        """Raises :class:`LoadError` for a target that can't be loaded."""
        if options.scenario != NONE:
            if not sidecar(options):
                raise LoadError(
                    f"--scenario {options.scenario} calls actors through a Dapr sidecar, and there is none: run it in "
                    "the cluster (charts/load-tests), or name one with --sidecar"
                )
            if self._observer is None:
                Observer(Watched.model_validate(options)).check()  # says why it can't look
                raise LoadError(f"--scenario {options.scenario} looks at placement: leave --placement off out")
        if any(issubclass(user, ChatUser) for user in self._environment.user_classes):
            preflight.check_host(self._environment.host)
            if options.verifies:
                preflight.check_memory(options.memory_host.rstrip("/"))
        if any(issubclass(user, ActorUser) for user in self._environment.user_classes):
            preflight.check_sidecar(sidecar(options))

    def _plan(self) -> Plan:
        """For the conductor: a new run begins."""
        options = Options.of(self._environment)
        parsed: Any = self._environment.parsed_options
        self._choose_users(options)
        self._look(options)
        self._unfinished = True
        self._aborted = None
        watch = Watch(options.thresholds, options.abort_after, lambda check: gevent.spawn(self._abort, check))
        most, spawn_rate = parsed.num_users or DEFAULT_USERS, parsed.spawn_rate or 1
        classes = ", ".join(sorted(user.__name__ for user in self._environment.user_classes))
        if options.scenario == NONE:
            self._recorder.begin(options, f"{options.shape}: {classes}", watch)
            self._shape = shape(
                options,
                users=most,
                spawn_rate=spawn_rate,
                run_time=parsed.run_time or DEFAULT_RUN_SECONDS,
                window=self._recorder.window,
                event=self._recorder.event,
            )
            return self._shape
        self._recorder.begin(options, f"scenario {options.scenario}", watch)
        self._stage = Stage(
            scenarios.SCRIPTS[options.scenario],
            environment=self._environment,
            recorder=self._recorder,
            options=options,
            users=most,
            deployment=HostDeployment(options),
            rounds=self._rounds,
        )
        return self._stage

    def _abort(self, check: Check) -> None:
        """A threshold is broken for good: the run ends, and has failed whatever its last turns do."""
        self._aborted = Check(name="the run came to its end", passed=False, detail=f"aborted: {check.detail}")
        self._recorder.event("problem", self._aborted.detail)
        if self._stage:
            self._stage.stop()
        self._conductor.leave()

    def _on_terminate(self) -> None:
        log.info("terminated: the run ends")
        self._terminated = True
        if self._verifying:
            return  # the report comes at once
        if not self._unfinished:
            sys.exit(143)  # as a shell says of SIGTERM
        if self._stage:
            self._stage.stop()
        self._conductor.end()

    def _on_stop(self, **_: Any) -> None:
        if self._stage:
            self._stage.stop()
        if not self._headless:
            gevent.spawn_later(LAST_REPORTS_SECONDS, self._finish)

    def _on_quitting(self, **_: Any) -> None:
        runner = self._environment.runner
        if self._stage:
            self._stage.stop()
        if self._unfinished and runner and runner.state not in {"stopped", "ready"}:
            runner.quit()  # SIGTERM or Ctrl-C in the middle of a run
        if self._stream:
            self._stream.close()
        self._finish()

    def _finish(self) -> None:
        """Judges the run and writes its report, unless that has been done; where that is under way, waits for its end.
        The last run decides on the exit code."""
        with self._finishing:
            if self._unfinished:
                self._judge()

    def _judge(self) -> None:
        self._unfinished = False
        options = Options.of(self._environment)
        record = self._recorder.finish()
        if isinstance(self._shape, StepsToKnee) and (section := self._shape.section()):
            record.sections.append(section)
        if options.verifies:
            record.sections.append(self._verified(options, record))
        record.checks = [*judge(options.thresholds, record), *([self._aborted] if self._aborted else [])]
        terminal.show(record, terminal.console())
        if options.report:
            folder = Path(options.report)
            if not self._headless:  # one run after the other
                folder /= time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(record.started))
            # In a thread: it takes seconds, in which a master has to answer its workers and its web UI.
            for path in gevent.get_hub().threadpool.apply(report.write, (record, folder)):
                log.info("%s", path)
        if self._environment.process_exit_code != GAVE_UP:
            self._environment.process_exit_code = 0 if record.passed else 1

    def _verified(self, options: Options, record: Record) -> Section:
        """What those who chat were told, against what is stored. Whoever is told to end does not wait for events."""
        told = self._recorder.told
        log.info("%s turns are held against what is stored", f"{len(told.turns):,}")
        sources = Sources(
            chat=(self._environment.host or "").rstrip("/"),
            memory=options.memory_host.rstrip("/"),
            sidecar=sidecar(options),
            actor_type=options.actor_type,
            headers=calls.headers(),
        )
        self._verifying = True
        try:
            found = verification.verify(
                told, Reader(sources), settle_seconds=options.verify_seconds, hurry=lambda: self._terminated
            )
        finally:
            self._verifying = False
        return verification.section(told, found, started=record.started, ended=record.ended, events=record.events)

    def _versions(self) -> Mapping[str, str]:
        return {"Locust": locust.__version__, **(self._observer.versions() if self._observer else {})}


def _observer(options: Options) -> Observer | None:
    """What looks at placement; ``None`` where it is switched off, or the cluster can't be asked and need not be."""
    if options.placement == "off":
        return None
    try:
        observer = Observer(Watched.model_validate(options))
        observer.check()
    except LoadError as error:
        if options.placement == "on" or options.scenario != NONE:
            raise
        log.warning("no placement view: %s", error)
        return None
    return observer


def _refuse_bad_forms(web_ui: WebUI, environment: Environment) -> None:
    """The web UI takes any text for an option of ours; said here, before Locust answers that all is well."""

    def check() -> Response | None:
        if request.method != "POST" or not request.path.endswith("/swarm"):
            return None
        try:
            Options.parse({**vars(environment.parsed_options), **request.form})
        except LoadError as error:
            return jsonify({"success": False, "message": str(error), "host": environment.host})
        return None

    app: Any = web_ui.app
    app.before_request(check)
