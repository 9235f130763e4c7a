"""Asks a few actors all the time where they live, the same ones from the sidecar of every worker: whoever asks seldom,
or through one sidecar, does not see an actor that is active twice. It is no load, and counted nowhere."""

import itertools
import json
import time
from typing import Any, Final

import gevent
import urllib3
from gevent import Greenlet
from locust.env import Environment
from locust.runners import MasterRunner

from actor_load import ids, notes
from actor_load.actors_api import method_path
from actor_load.options import Options, sidecar
from actor_load.users.calls import VISIT, headers

WATCHED: Final = 10
PAUSE_SECONDS: Final = 0.2
SECONDS: Final = 10.0
"""Of one call: while actors move, the sidecar holds it back."""


def watch(environment: Environment) -> None:
    """Watches during each run that is checked afterwards; to be called once, when Locust has its runner."""
    running: list[Greenlet[..., None]] = []

    def on_start(**_: Any) -> None:
        options = Options.of(environment)
        if options.verifies and sidecar(options):
            running.append(gevent.spawn(_watch, environment, options))

    def on_stop(**_: Any) -> None:
        gevent.killall(running, block=False)
        running.clear()

    if not isinstance(environment.runner, MasterRunner):
        environment.events.test_start.add_listener(on_start)
        environment.events.test_stop.add_listener(on_stop)


def _watch(environment: Environment, options: Options) -> None:
    share, noted = ids.share(environment), notes.of(environment)
    pool = urllib3.PoolManager(timeout=SECONDS, retries=False)
    for number in itertools.cycle(range(WATCHED)):
        gevent.sleep(PAUSE_SECONDS)
        actor_id, asked = share.id(number, "watched"), time.time()
        url = sidecar(options) + method_path(options.actor_type, actor_id, "BeginTurn")
        try:
            answer = pool.request("POST", url, body=VISIT, headers=headers())
            body = json.loads(answer.data) if answer.status == 200 else {}
        except (urllib3.exceptions.HTTPError, ValueError):
            continue  # nobody waits for it
        if noted is not None and isinstance(body, dict) and "activation_id" in body:
            noted.activation(actor_id, body["activation_id"], body["host"], asked, time.time())
