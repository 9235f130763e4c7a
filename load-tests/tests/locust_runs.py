"""For tests of user classes: a chat and a sidecar to load, and Locust as a process of its own.

Locust patches the standard library for gevent when it is imported; that must not reach pytest. The server keeps the
promises of chat-service and its actors, unless a test has it do something else.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

from actor_load.record import percentile
from support.serving import free_port

LOAD_TESTS = Path(__file__).parents[1]

LOCUSTFILE = """
import json
import os
from pathlib import Path

import gevent
from locust import events
from locust.runners import WorkerRunner

from actor_load import ids, options, users
from actor_load.users.actors import ActivationStorm, ColdActors, HotActors, ReadsAndWrites
from actor_load.users.arrivals import Arrivals
from actor_load.users.conversation import Conversation
from actor_load.users.visits import Rounds, Visits

events.init_command_line_parser.add_listener(options.add_arguments)
found = {}

@events.init.add_listener
def on_init(environment, **_):
    users.register(environment)
    if not isinstance(environment.runner, WorkerRunner):
        @events.spawning_complete.add_listener
        def on_first_spawned(**_):
            events.spawning_complete.remove_listener(on_first_spawned)
            gevent.spawn_later(float(os.environ["SECONDS"]), environment.runner.quit)

        @events.quit.add_listener
        def on_quit(exit_code, **_):
            found["stats"] = environment.stats.serialize_stats()
            found["errors"] = list(environment.stats.serialize_errors().values())
            found["exceptions"] = [item["traceback"] for item in environment.runner.exceptions.values()]
            Path(os.environ["FOUND"]).write_text(json.dumps(found))
"""


class Seen(NamedTuple):
    """A request as the server got it."""

    at: float
    path: str
    body: dict
    key: str
    connection: int


class Reply(NamedTuple):
    """An answer that a test has the server give."""

    status: int
    body: object
    headers: Sequence[tuple[str, str]] = ()


class HangUp(Exception):
    """A test has the server close the connection instead of answering; raised after the commit, the turn is in."""


class Target:
    """The server under load. ``before(seen)`` and ``after(seen, reply)`` may wait, raise :class:`HangUp`, or return
    what is answered instead; ``before`` comes before the turn is committed. ``kept(user_id, turns)`` may give other
    turns for the transcripts."""

    def __init__(self):
        self.seen = []
        self.before = self.after = lambda *_: None
        self.host_of = lambda _: "pod-0"
        self.activations = defaultdict(lambda: uuid4().hex)
        self.kept = lambda _, turns: turns
        self._committed = {}
        self._turns = defaultdict(list)
        self._sequences = Counter()
        self._lock = threading.Lock()
        self.url = ""

    def ids(self, ending=""):
        """Ids of the actors called, in order."""
        return [seen.path.split("/")[4] for seen in self.seen if seen.path.endswith(ending)]

    def answer(self, seen):
        """The reply to a request."""
        with self._lock:
            self.seen.append(seen)
        if instead := self.before(seen):
            return instead
        with self._lock:
            reply = self._chat(seen) if seen.path == "/chat/" else self._actor(seen)
        return self.after(seen, reply) or reply

    def _chat(self, seen):
        user_id = seen.body["user_id"]
        if seen.key not in self._committed:
            self._sequences[user_id] += 1
            self._committed[seen.key] = {
                "user_id": user_id,
                "reply": f"You said {seen.body['text']}",
                "metadata": {"session_id": seen.body["metadata"]["session_id"], "timestamp": "2026-01-01T00:00:00Z"},
                "turn_id": seen.key,
                "sequence": self._sequences[user_id],
            }
            self._turns[user_id].append((seen.body["text"], self._committed[seen.key]))
        return Reply(200, dict(self._committed[seen.key]))

    def _actor(self, seen):
        _, _, _, actor_type, actor_id, _, method = seen.path.split("/")[:7]
        assert actor_type == "UserSessionActor"
        host = self.host_of(actor_id)
        place = {"host": host, "activation_id": self.activations[actor_id, host]}
        match method:
            case "BeginTurn":
                return Reply(200, {"status": "granted", **place})
            case "AddMessage":
                self._sequences[actor_id] += 1
                return Reply(200, {"status": "committed", "sequence": self._sequences[actor_id], **place})
            case "GetConversationHistory" if actor_id in self._turns:
                return Reply(200, [_spoken(text, reply) for text, reply in self._turns[actor_id][-5:]])
            case "GetConversationHistory":
                last = self._sequences[actor_id]
                return Reply(200, [{"sequence": sequence} for sequence in range(max(1, last - 4), last + 1)])

    def found(self, path):
        """The answer to what is read afterwards: a turn's outcome, or a transcript."""
        match urlsplit(path).path.split("/")[1:], dict(parse_qsl(urlsplit(path).query)):
            case ["chat", _, "turns", key], _:
                reply = self._committed.get(key)
                state = {"status": "committed", "reply": reply} if reply else {"status": "not_committed"}
                return Reply(200, {"turn_id": key, **state})
            case ["conversations", session_id], {"user_id": user_id}:
                turns = self.kept(user_id, [_spoken(*turn) for turn in self._turns[user_id]])
                history = [
                    {**turn, "role": role, "content": turn[text], "user_id": user_id}
                    for turn in turns
                    if turn["session_id"] == session_id
                    for role, text in (("user", "user_text"), ("assistant", "reply_text"))
                ]
                return Reply(200, {"history": history, "before": None})
        return Reply(404, {})


def _spoken(text, reply):
    """A turn as the history has it."""
    told = {"user_text": text, "reply_text": reply["reply"], "session_id": reply["metadata"]["session_id"]}
    return {**told, "turn_id": reply["turn_id"], "sequence": reply["sequence"]}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any
    disable_nagle_algorithm = True

    def do_GET(self):
        """What is looked at before a run: the chat's welcome, the sidecar's health."""
        match self.path:
            case "/":
                self._say(Reply(200, {"message": "The DACA Chat Service and the DACA Agent Memory Service."}))
            case "/v1.0/healthz/outbound":
                self._say(Reply(204, None))
            case _:
                self._say(self.server.target.found(self.path))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers.get("Idempotency-Key", "")
        try:
            reply = self.server.target.answer(Seen(time.time(), self.path, body, key, self.client_address[1]))
        except HangUp:
            self.close_connection = True
            return
        self._say(reply)

    def _say(self, reply):
        content = b"" if reply.body is None else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in (("Content-Type", "application/json"), *reply.headers):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def handle(self):
        try:
            super().handle()
        except ConnectionError:  # Locust is gone
            self.close_connection = True

    def log_message(self, *_):
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    target: Target


@contextmanager
def serving():
    """A :class:`Target` on a loopback port."""
    target = Target()
    server = _Server(("127.0.0.1", 0), _Handler)
    server.target = target
    target.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield target
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Entry:
    """A row of Locust's table."""

    requests: int
    failures: int
    latency_ms: Counter

    def percentile(self, percent):
        """In ms."""
        return percentile(self.latency_ms, percent)


class Run:
    """What a run of Locust left."""

    def __init__(self, found, said):
        self.found = found
        self.said = said
        self.entries = {
            f"{item['method']} {item['name']}": Entry(
                item["num_requests"],
                item["num_failures"],
                Counter({float(latency): count for latency, count in item["response_times"].items()}),
            )
            for item in found["stats"]
        }
        self.errors = {
            f"{item['method']} {item['name']}: {item['error']}": item["occurrences"] for item in found["errors"]
        }

    @property
    def failures(self):
        """Of all requests."""
        return sum(entry.failures for entry in self.entries.values())

    def requests(self, start):
        """Requests under names that start so."""
        return sum(entry.requests for name, entry in self.entries.items() if name.startswith(start))


def distributed(processes):
    """Options for a master and so many workers."""
    port = free_port()
    return [
        "--processes",
        processes,
        "--master-bind-host",
        "127.0.0.1",
        "--master-bind-port",
        port,
        "--master-port",
        port,
    ]


def command(folder, target, classes, *options, users=1, seconds=1, code=""):
    """Locust's command line and environment. ``code`` goes into the locustfile; ``seconds`` are counted from when all
    users are there."""
    folder = Path(folder)
    (folder / "locustfile.py").write_text(LOCUSTFILE + code)
    line = [sys.executable, "-m", "locust", "-f", folder / "locustfile.py", *classes, "--headless", "-u", users]
    line += ["-r", 100, "-t", "50s", "--host", target, "--only-summary", *options]
    more = {"PYTHONPATH": str(LOAD_TESTS), "FOUND": str(folder / "found.json"), "SECONDS": str(seconds)}
    environment = {**os.environ, **more}
    environment.pop("DAPR_HTTP_PORT", None)
    return [str(part) for part in line], environment


def load(folder, target, classes, *options, **more):
    """Runs Locust until it ends by itself; what it found. See :func:`command`."""
    line, environment = command(folder, target, classes, *options, **more)
    said = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return found(folder, said.returncode, said.stdout + said.stderr)


def found(folder, code, output):
    """What Locust has found, in the folder of its :func:`command`."""
    assert code in {0, 1}, output
    run = Run(json.loads((Path(folder) / "found.json").read_text()), output)
    assert not run.found["exceptions"], run.found["exceptions"]
    assert "Traceback" not in output, output
    return run
