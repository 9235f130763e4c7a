"""The placement view inside a Locust process: the observer runs as a child of it, and its samples come by a callback.

So the observer needs no gevent, and neither its work nor a cluster that does not answer delays the generator. This
module itself works with and without gevent's patches.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from actor_load.placement.observer import Watched
from actor_load.record import EventKind, PlacementSample

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
"""Between the end of the child and the next one: doubled from the first to the longest while no sample comes."""

STOP_SECONDS: Final = 2.0
SAID_CHARACTERS: Final = 300
_PACKAGES: Final = Path(__file__).parents[2]


class PlacementStream:
    """Samples for as long as it is open: ``stream = PlacementStream(watched, recorder.sample, recorder.event)``."""

    def __init__(
        self,
        watched: Watched,
        on_sample: Callable[[PlacementSample], None],
        on_event: Callable[[EventKind, str], None],
    ) -> None:
        """Starts the child. Both callbacks are called from a thread (with gevent's patches: a greenlet) of its own.

        ``on_event`` is told of a problem: that the child has ended, once until samples come again.
        """
        self._on_sample = on_sample
        self._on_event = on_event
        settings = (
            (f"--{name.replace('_', '-')}", str(value)) for name, value in watched.model_dump().items() if value != ""
        )
        self._command = [
            *(sys.executable, "-m", "actor_load.placement", "--json", "--parent", str(os.getpid())),
            *(part for setting in settings for part in setting),
        ]
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, name="placement", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Of the child; ``None`` while there is none."""
        with self._lock:
            return self._child.pid if self._child and self._child.poll() is None else None

    def close(self) -> None:
        """Ends the child and returns when it has ended; no callback is called any more. May be called again."""
        with self._lock:
            self._closed.set()
            child = self._child
        if child is not None:
            child.terminate()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        told = False
        while child := self._start():
            said, samples = self._read(child)
            code = child.wait()
            if self._closed.is_set():
                return
            if samples:
                pause, told = FIRST_PAUSE_SECONDS, False
            if not told:
                self._on_event(
                    "problem", f"the placement view ended ({said or f'exit code {code}'}); it is started again"
                )
                told = True
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _start(self) -> "subprocess.Popen[str] | None":
        with self._lock:
            if self._closed.is_set():
                return None
            folders = [str(_PACKAGES), os.environ.get("PYTHONPATH", "")]
            self._child = subprocess.Popen(  # noqa: S603 - this program's own
                self._command,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # Ctrl-C is for Locust, which closes this
            )
            return self._child

    def _read(self, child: "subprocess.Popen[str]") -> tuple[str, int]:
        """Until the child's end: the last line that was no sample, and how many were."""
        said, samples = "", 0
        assert child.stdout is not None  # noqa: S101 - a pipe was asked for
        with child.stdout as lines:
            for line in lines:
                try:
                    sample = PlacementSample.model_validate_json(line)
                except ValidationError:
                    said = line.strip()[:SAID_CHARACTERS] or said
                    continue
                if self._closed.is_set():
                    break
                samples += 1
                self._on_sample(sample)
        return said, samples
