"""`make local` with its real programs. It needs no cluster: what it needs is built, if need be, by the first test."""

import json
import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager
from uuid import uuid4

import psutil
import pytest
from support.people import conversations, slowest

from cluster import binaries, rest
from cluster.local import ports, processes, programs, runfile
from cluster.local.command import TOOLS
from cluster.versions import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]  # where Dapr has to be built first

CHAT = "http://localhost:8010"
MEMORY = "http://localhost:8001"
SIDECAR = "http://localhost:3500"
UP_SECONDS = 240
DOWN_SECONDS = 60


class Local:
    """One `make local`, and what it says."""

    def __init__(self, state, **environment):
        self.state = state
        self._out = state.parent / f"{uuid4().hex}.out"
        with self._out.open("w") as out:
            # A process group of its own, as in a terminal: Ctrl-C goes to all of it.
            self._process = subprocess.Popen(
                ["make", "--no-print-directory", "local"],
                cwd=ROOT,
                env={**os.environ, "DACA_LOCAL": str(state), **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    @property
    def said(self):
        return self._out.read_text()

    @property
    def runner(self):
        """The process that has the others for children."""
        return int((self.state / "lock").read_text())

    def chat(self, body, *, key):
        """POST /chat/ as it is, whatever the answer."""
        return rest.call("POST", f"{CHAT}/chat/", body, headers={"Idempotency-Key": key})

    def memory(self, method, path):
        """A request to agent-memory-service as it is, whatever the answer."""
        return rest.call(method, f"{MEMORY}/{path}")

    def up(self):
        end = time.monotonic() + UP_SECONDS
        while "Ctrl-C stops it" not in self.said:
            assert self._process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.1)
        return self

    def ctrl_c(self):
        """Its exit code."""
        os.killpg(self._process.pid, signal.SIGINT)
        return self.ended()

    def ended(self):
        """Its exit code, once it has ended."""
        return self._process.wait(DOWN_SECONDS)

    def close(self):
        """Ends it and what it has started, however it is."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(DOWN_SECONDS)
        for process in children(self.state):
            process.kill()


def children(state, wanted=""):
    """What runs of a `make local`, or of one program of it."""
    found = []
    for process in psutil.process_iter():
        try:
            name, _, folder = process.environ().get(processes.MARK, "").partition(" ")
            chosen = name == wanted if wanted else bool(name)
            if chosen and folder == str(state) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def planned():
    return programs.programs(runfile.apps(), (), {}, "")


def all_ports():
    return planned().ports


@contextmanager
def running(state, **environment):
    local = Local(state, **environment)
    try:
        yield local
    finally:
        local.close()


def refused(state):
    """The one line of a `make local` that cannot start."""
    done = subprocess.run(
        ["make", "--no-print-directory", "local"],
        cwd=ROOT,
        env={**os.environ, "DACA_LOCAL": str(state)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stdout
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("make: ***")]
    return line


def nothing_is_left(state):
    return not children(state) and ports.taken(all_ports()) == {}


def eventually(reached, seconds=20):
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def typed(line):
    """What a line prints that is typed into a shell, as JSON."""
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return json.loads(done.stdout)


def chat(user_id, text):
    answer = rest.call("POST", f"{CHAT}/chat/", {"user_id": user_id, "text": text})
    assert answer.status == 200, answer.text
    return answer.json()


def transcript(session_id, entries):
    history = []

    def arrived():
        history[:] = rest.call("GET", f"{MEMORY}/conversations/{session_id}").json()["history"]
        return len(history) >= entries

    assert eventually(arrived), history
    return history


@pytest.fixture(scope="module", autouse=True)
def tools():
    """Dapr's programs: on another cluster than the bare node nobody has built them yet."""
    binaries.build(TOOLS)


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture(scope="class")
def local(tmp_path_factory):
    """A run that is up for the tests of a class."""
    with running(tmp_path_factory.mktemp("local") / "state") as up:
        yield up.up()


class TestUp:
    def test_the_tutorials_lines_are_shown_and_hold_its_conversation(self, local):
        initialise, first, second, memory, history = re.findall(r"^curl .*", local.said, re.MULTILINE)
        curl = "curl --no-progress-meter --fail-with-body "
        assert typed(initialise.replace("curl ", curl))["status"] == "success"
        assert "Junaid" in typed(first.replace("curl ", curl))["reply"]
        answer = typed(second.replace("curl ", curl))
        assert "Hi there" in answer["reply"]
        session_id = answer["metadata"]["session_id"]
        assert transcript(session_id, 2)[0]["content"] == "What did I say before?"
        shown = typed(history.replace("curl ", curl).replace("<session_id of an answer>", session_id))
        assert [entry["role"] for entry in shown["history"]] == ["user", "assistant"]
        assert typed(memory.replace("curl ", curl))["name"] == "Junaid"

    def test_a_session_has_its_turns_in_order_and_can_be_cleared(self, local, user_id):
        session = {"metadata": {"session_id": f"session-{user_id}"}, "user_id": user_id}
        for number in range(1, 4):
            answer = rest.call("POST", f"{CHAT}/chat/", {**session, "text": f"Message {number}"}).json()
            assert answer["sequence"] == number
        said = [entry["content"] for entry in transcript(f"session-{user_id}", 6) if entry["role"] == "user"]
        assert said == ["Message 1", "Message 2", "Message 3"]
        assert rest.call("DELETE", f"{CHAT}/chat/{user_id}/history").status == 200
        method = f"{SIDECAR}/v1.0/actors/UserSessionActor/{user_id}/method/GetConversationHistory"
        assert rest.call("POST", method, {}).json() == []

    def test_only_the_sidecar_may_call_actors_and_deliver_events(self, local, user_id):
        path = f"actors/UserSessionActor/{user_id}/method/GetConversationHistory"
        assert rest.call("PUT", f"{CHAT}/{path}", {}).status == 401
        assert rest.call("POST", f"{MEMORY}/conversations", {}).status == 401

    def test_nothing_but_health_can_be_reached_from_elsewhere(self, local):
        open_to_all = set()
        for process in children(local.state):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.ip not in {"127.0.0.1", "::1"}:
                    open_to_all.add(all_ports()[connection.laddr.port])
        # Dapr 1.18 has an option for their address, and does not heed it.
        assert open_to_all == {"placement's health", "the scheduler's health"}

    def test_every_port_that_it_takes_is_one_that_it_checks_before(self, local):
        taken = {
            connection.laddr.port
            for process in children(local.state)
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert taken == all_ports().keys()

    def test_a_second_run_is_told_of_the_first_in_one_line(self, local):
        line = refused(local.state)
        assert f"`make local` runs already in this checkout (process {local.runner})" in line

    def test_taken_ports_are_one_line_that_names_who_has_them(self, local, state):
        line = refused(state)
        assert re.search(r"port 8010 \(chat-service\): taken by python\S* \(process \d+\)", line)
        assert re.search(r"port 6379 \(Redis\): taken by redis-server \(process \d+\)", line)
        assert chat("somebody", "Hi there")["reply"]


@pytest.mark.parametrize("name", [program.name for program in planned().control_plane])
def test_a_part_of_daprs_control_plane_that_is_killed_is_started_again_and_nobody_waits_for_long(state, user_id, name):
    def is_back():
        found = children(state, name)
        return bool(found) and found != [killed] and program.ready()

    (program,) = [program for program in planned().control_plane if program.name == name]
    with running(state) as local:
        local.up()
        with conversations(local, user_id) as people:
            (killed,) = children(state, name)
            killed.kill()
            assert eventually(is_back)
        for person in people:
            assert person.was_heard(), person.said()
        assert f"{name} has ended (signal SIGKILL): it is started again" in local.said
        assert slowest(people) < 10
        local.ctrl_c()
        assert nothing_is_left(state)


def test_a_key_of_the_environment_is_in_the_secret_store_and_nowhere_else(state):
    with running(state, MODEL="gemini", GEMINI_API_KEY="not-a-key") as local:
        local.up()
        assert "gemini answers" in local.said
        assert rest.call("GET", f"{SIDECAR}/v1.0/secrets/secretstore/gemini-api-key").json() == {
            "gemini-api-key": "not-a-key"
        }
        started = children(state)
        assert len(started) == len(list(planned())) - 1  # there is no offline model
        for process in started:
            assert "not-a-key" not in {*process.environ().values(), *process.cmdline()}
        local.ctrl_c()
    assert [path for path in state.rglob("*") if path.is_file() and b"not-a-key" in path.read_bytes()] == []


def test_ctrl_c_leaves_nothing_running_and_what_was_said_is_there_the_next_time(state, user_id):
    with running(state) as local:
        local.up()
        session_id = chat(user_id, "Hi there")["metadata"]["session_id"]
        assert local.ctrl_c() in {0, -signal.SIGINT}  # that of make, which gets the signal too
        assert "Traceback" not in local.said
        assert nothing_is_left(state)
    with running(state) as local:
        local.up()
        assert "Hi there" in chat(user_id, "What did I say before?")["reply"]
        assert transcript(session_id, 2)[0]["content"] == "Hi there"
        # The other way to go: no goodbye at all. The kernel sees to it that nothing stays.
        os.kill(local.runner, signal.SIGKILL)
        assert eventually(lambda: nothing_is_left(state)), children(state)


def test_what_a_killed_run_has_left_is_cleared_away_and_a_program_that_ends_stops_all(state, tmp_path):
    # Not every system ends the children of a process that was killed; now this one does not either.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "setpriv").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "setpriv").chmod(0o755)
    with running(state, PATH=f"{tmp_path}/bin:{os.environ['PATH']}") as killed:
        os.kill(killed.up().runner, signal.SIGKILL)
        assert killed.ended() == 2
        assert len(children(state)) == len(list(planned()))
        with running(state) as local:
            (line,) = [line for line in local.up().said.splitlines() if "left by a run that was killed" in line]
            for name in ("redis", "chat-service", "chat-service.sidecar", "placement"):
                assert re.search(rf"\b{re.escape(name)} \(process \d+\)", line)
            (sidecar,) = [process for process in children(state) if "--app-id=chat-service" in process.cmdline()]
            sidecar.kill()
            assert local.ended() == 2
            assert "chat-service.sidecar has ended (signal SIGKILL); all it said is in" in local.said
            assert "--- the end of" in local.said
            assert nothing_is_left(state)
