"""Whole runs of load-tests/locustfile.py, as they are typed: options and targets, record, report, verdict."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager

import pytest
from actor_load.record import Record
from support.serving import free_port

from .locust_runs import LOAD_TESTS, HangUp, Reply, distributed, serving

pytestmark = pytest.mark.timeout(120)  # whole runs of Locust


@pytest.fixture
def target():
    with serving() as target:
        yield target


def command(target, *options):
    line = [sys.executable, "-m", "locust", "-f", LOAD_TESTS / "locustfile.py", "--host", target, *options]
    return [str(part) for part in line]


def environment():
    inherited = {
        name: value for name, value in os.environ.items() if name not in {"KUBERNETES_SERVICE_HOST", "DAPR_HTTP_PORT"}
    }
    return {**inherited, "KUBECONFIG": "/nonexistent"}


def run(target, *options, seconds=3):
    """Runs Locust headless until it ends by itself."""
    line = command(
        target, "--headless", "--only-summary", "--placement", "off", "-t", f"{seconds}s", "-r", 100, *options
    )
    return subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=90, check=False)


def record(folder):
    return Record.model_validate_json((folder / "report.json").read_bytes())


USERS = 4


def chatting(*more):
    return ("Conversation", "-u", USERS, "--think-time", "0.1", *more)


def test_a_run_ends_by_itself_and_leaves_its_report(target, tmp_path):
    done = run(target.url, *chatting("--report", tmp_path, "--max-error-rate", 0))

    assert done.returncode == 0, done.stderr
    left = record(tmp_path)
    assert left.title == "constant: Conversation"
    assert left.settings["target"] == target.url
    assert left.summary().answered == len({seen.key for seen in target.seen}) > 20
    assert left.passed
    assert [check.detail for check in left.checks] == ["failed of all requests is 0 %: --max-error-rate 0 holds"]
    assert {sample.process for sample in left.generator} == {"local"}
    assert max(sample.users for sample in left.generator) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.json", "report.png", "junit.xml"}


def test_a_run_that_breaks_its_thresholds_ends_with_1_and_a_line_for_each(target):
    done = run(target.url, *chatting("--max-p95", 0.1, "--max-p99", 100_000, "--min-rate", 9000))

    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert any("--max-p95 0.1 is broken" in line for line in failed)
    assert any("--min-rate 9000 is broken" in line for line in failed)
    assert not any("p99" in line for line in failed)


def test_a_threshold_that_is_broken_for_good_ends_the_run_early_if_it_was_asked_to(target, tmp_path):
    asked = ("--threshold", "turn@level:p95<0.1!abort", "--threshold", "turn:failed<1%", "--abort-after", 1)

    done = run(target.url, *chatting("--report", tmp_path, *asked), seconds=60)

    assert done.returncode == 1, done.stdout + done.stderr
    left = record(tmp_path)
    assert left.ended - left.started < 40
    assert [check.name for check in left.all_checks if not check.passed] == [
        "p95 of turns in level",
        "the run came to its end",
    ]
    assert left.events[-1].text.startswith("aborted: p95 of turns in level is ")
    assert sum(second.answered for second in left.due) == left.summary().answered


def test_failures_within_the_threshold_pass(target):
    target.before = lambda seen: Reply(500, {}) if len(target.seen) % 10 == 0 else None

    done = run(target.url, *chatting("--max-error-rate", 0.5))

    assert done.returncode == 0, done.stdout + done.stderr


def test_turns_under_way_at_the_end_of_a_run_are_not_cut_off(target, tmp_path):
    target.before = lambda _: time.sleep(2)

    done = run(target.url, *chatting("--report", tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr
    summary = record(tmp_path).summary()
    assert summary.failed == 0
    assert summary.answered == len(target.seen)


def test_retries_are_told_apart_from_turns(target, tmp_path):
    broken = set()

    def before(seen):
        if seen.key not in broken and len(broken) < 5:
            broken.add(seen.key)
            raise HangUp

    target.before = before

    done = run(target.url, *chatting("--report", tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr
    left = record(tmp_path)
    assert left.summary(prefix="retry").answered == 5
    assert left.summary().answered == len(target.seen) - 5


@pytest.mark.parametrize("processes", [(), distributed(2)], ids=["local", "two workers"])
def test_a_storm_ends_when_every_actor_is_activated(target, tmp_path, processes):
    storm = ("ActivationStorm", "-u", 4, "--actors", 200, "--sidecar", target.url, "--report", tmp_path)

    done = run(target.url, *storm, *processes, seconds=60)

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(set(target.ids("BeginTurn"))) == len(target.seen) == 200
    left = record(tmp_path)
    assert left.ended - left.started < 30


def test_what_all_workers_count_is_added_up(target, tmp_path):
    done = run(target.url, *chatting("--report", tmp_path, *distributed(2)))

    assert done.returncode == 0, done.stdout + done.stderr
    left = record(tmp_path)
    sent = len({seen.key for seen in target.seen})
    # On a machine that is busy, the run's end may meet a message of each user that is on its way.
    assert sent - USERS <= left.summary().answered <= sent
    assert len({sample.process for sample in left.generator}) == 3
    assert {sample.process for sample in left.generator if not sample.users} >= {"master"}


@pytest.mark.parametrize(
    ("host", "options", "line"),
    [
        ("", (), "--host is missing"),
        ("http://127.0.0.1:9", (), "--host http://127.0.0.1:9 does not answer (Connection refused)"),
        ("http://no-such-host.invalid", (), "--host http://no-such-host.invalid does not answer"),
        ("chat", (), "--host chat is no address"),
        ("{url}/elsewhere", (), "answers 404, but not as chat-service does"),
        ("{url}", ("HotActors",), "HotActors calls actors through a Dapr sidecar, and there is none"),
        ("{url}", ("HotActors", "--sidecar", "http://127.0.0.1:9"), "sidecar http://127.0.0.1:9 does not answer"),
        ("{url}", ("--scenario", "scale"), "--scenario scale calls actors through a Dapr sidecar, and there is none"),
        ("{url}", ("--scenario", "scale", "--sidecar", "{url}"), "no cluster: there is no kubeconfig /nonexistent"),
        ("{url}", ("--verify",), "--memory-host is missing"),
        (
            "{url}",
            ("--verify", "--memory-host", "{url}/else"),
            "/else answers 404, but not as agent-memory-service does",
        ),
        ("{url}", ("--think-time", "soon"), "--think-time soon: must be a number or a range"),
        ("{url}", ("--threshold", "turn:p95"), "--threshold turn:p95: 'turn:p95' is no threshold"),
        ("{url}", ("--shape", "steps", "-t", "5s"), "--run-time 5: too short"),
        ("{url}", ("--report", "/dev/null/report"), "/dev/null/report: cannot be written"),
        ("{url}", ("--class-picker",), "--class-picker would take the load shape away"),
    ],
)
def test_what_can_not_be_run_is_one_line_and_exit_code_2(target, host, options, line):
    done = run(*(text.format(url=target.url) for text in (host, *options)))

    assert done.returncode == 2, done.stdout + done.stderr
    said = [text for text in done.stderr.splitlines() if "error: " in text]
    assert len(said) == 1
    assert line in said[0]
    assert "Traceback" not in done.stdout + done.stderr
    assert not target.seen


def test_a_run_that_is_terminated_still_leaves_its_report(target, tmp_path):
    line = command(
        target.url,
        "--headless",
        "--placement",
        "off",
        "-t",
        "60s",
        *chatting("--report", tmp_path, "--max-error-rate", 0),
    )
    with subprocess.Popen(
        line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        wait_for(lambda: len(target.seen) > 5)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)

    assert process.returncode == 0, said
    assert record(tmp_path).summary().answered > 5


@contextmanager
def web_ui(target, *options):
    """Locust with its web UI on a port of its own: posts a form to a path, gives back the JSON."""
    port = free_port()
    line = command(target, "--web-host", "127.0.0.1", "--web-port", port, "--placement", "off", *options)
    with subprocess.Popen(
        line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:

        def asked(path, **form):
            data = urllib.parse.urlencode(form).encode() if form else None
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=10) as answer:
                return answer.read().decode()

        def answers():
            try:
                return asked("/")
            except OSError:
                return None

        try:
            wait_for(answers)
            yield asked
        finally:
            process.terminate()
            said, _ = process.communicate(timeout=60)
        assert "Traceback" not in said, said


def swarm(asked, host, **form):
    return json.loads(asked("/swarm", user_count=3, spawn_rate=10, host=host, **form))


def test_the_web_ui_runs_one_run_after_the_other_each_with_a_report_of_its_own(target, tmp_path):
    with web_ui(target.url, *chatting("--report", tmp_path)) as asked:
        assert swarm(asked, target.url, run_time="30s")["success"]
        wait_for(lambda: len(target.seen) > 3)
        asked("/stop", now="yes")
        wait_for(lambda: len(list(tmp_path.glob("*/report.json"))) == 1)
        first = len(target.seen)

        assert swarm(asked, target.url, run_time="3s", think_time="0.2")["success"]
        wait_for(lambda: len(list(tmp_path.glob("*/report.json"))) == 2)

    runs = sorted((record(folder) for folder in tmp_path.iterdir()), key=lambda left: left.started)
    assert runs[0].summary().answered == first
    assert runs[1].summary().answered == len(target.seen) - first
    assert runs[1].settings["think_time"] == "0.2"
    assert 3 <= runs[1].ended - runs[1].started < 15


def test_thresholds_decide_on_the_exit_code_of_a_run_with_the_web_ui_too(target):
    options = chatting("--autostart", "--autoquit", 4, "-t", "3s", "--placement", "off", "--max-p95", 0.1)
    line = command(target.url, "--web-host", "127.0.0.1", "--web-port", free_port(), *options)

    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=90, check=False)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED" in done.stdout


def test_the_web_ui_refuses_a_bad_option_by_its_name(target):
    with web_ui(target.url) as asked:
        answer = swarm(asked, target.url, shape="square")

        assert not answer["success"]
        assert "--shape square" in answer["message"]
        assert "constant" in asked("/")
    assert not target.seen


def wait_for(reached, seconds=40):
    end = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < end, "not reached"
        time.sleep(0.1)
    return found
