"""The bench: what it reads from wrk, /proc, sidecars and Redis, what it makes of it, what it ends. Nothing is timed."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import psutil
import pytest
from bench import __main__ as command_line
from bench import activations, actor_calls, calls, children, cpu, first_token, long, picture, report, run, systems
from bench.children import Child
from bench.cpu import Process
from bench.run import Plan, Run, Step
from bench.systems import System
from bench.wrk import Load, Wrk, check_address
from rich.console import Console

from cluster import bench as command
from cluster.errors import CommandError
from cluster.target import Target
from cluster.versions import ROOT

PRINTED = """\
Running 10s test @ http://127.0.0.1:21010/chat/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   304.18ms   92.63ms 839.16ms   81.15%
    Req/Sec   104.78     34.90   181.00     60.00%
  Latency Distribution
     50%  292.20ms
     75%  339.72ms
     90%  407.12ms
     99%    1.06s
  1034 requests in 10.01s, 271.89KB read
Requests/sec:    103.32
Transfer/sec:     27.17KB
"""
ALL_WELL = f"{PRINTED}Status 200: 1034\n"
HERE = "http://127.0.0.1:1/chat/"


class TestWhatWrkPrints:
    def test_turns_and_latencies_are_read_in_milliseconds(self) -> None:
        load = Load.parse(ALL_WELL)

        assert load == Load(10.01, {200: 1034}, 0, 292.2, 1060.0)
        assert load.turns_per_second == pytest.approx(103.3, abs=0.01)
        assert load.failed == 0

    @pytest.mark.parametrize(
        ("written", "milliseconds"), [("812.00us", 0.812), ("9.87ms", 9.87), ("1.50s", 1500.0), ("2.00m", 120_000.0)]
    )
    def test_every_unit_of_wrk_is_known(self, written: str, milliseconds: float) -> None:
        assert Load.parse(ALL_WELL.replace("292.20ms", written)).p50_ms == pytest.approx(milliseconds)

    def test_answers_that_are_no_turns_are_failures_by_their_status_and_no_turns(self) -> None:
        load = Load.parse(f"{PRINTED}  Non-2xx or 3xx responses: 30\nStatus 200: 1000\nStatus 307: 4\nStatus 503: 30\n")

        assert load.statuses == {200: 1000, 307: 4, 503: 30}
        assert (load.turns, load.failed) == (1000, 34)
        assert load.turns_per_second == pytest.approx(1000 / 10.01)

    def test_what_got_no_answer_is_a_failure_too(self) -> None:
        load = Load.parse(f"{ALL_WELL}  Socket errors: connect 1, read 2, write 0, timeout 4\n")

        assert (load.lost, load.failed) == (7, 7)

    def test_a_load_that_nobody_answered_has_no_turns(self) -> None:
        assert Load.parse(PRINTED).turns_per_second == 0

    def test_something_else_is_shown_and_refused(self) -> None:
        with pytest.raises(CommandError, match="wrk printed no results") as refused:
            Load.parse("unable to connect to 127.0.0.1:21010 Connection refused\n")
        assert "Connection refused" in refused.value.said


class TestWhereLoadMayGo:
    @pytest.mark.parametrize("url", ["http://127.0.0.1:8010/", "http://localhost:30010/", "http://198.18.0.1:30010/"])
    def test_this_machine_and_the_nodes_on_it(self, url: str) -> None:
        check_address(url)

    @pytest.mark.parametrize("url", ["http://10.0.0.1/", "http://198.20.0.1/", "http://example.com/", "nothing"])
    def test_nowhere_else(self, url: str) -> None:
        with pytest.raises(CommandError, match="load goes nowhere else"):
            check_address(url)


class TestNamesOfProcesses:
    @pytest.mark.parametrize(
        ("line", "name"),
        [
            ("/opt/venv/bin/python3 -m chat_service", "chat-service"),
            ("/usr/bin/python3.11 -X dev -m agent_memory_service", "agent-memory-service"),
            ("python -m offline_model", "model"),
            ("/work/.venv/bin/python -m bench.peers redis_session", "peer"),
            ("/daprd --dapr-http-port 3500 --app-id chat-service --app-port 8010", "chat-service's daprd"),
            ("/cache/daprd --app-id=agent-memory-service", "agent-memory-service's daprd"),
            ("redis-server *:6379", "Redis"),
            ("/usr/bin/redis-server 127.0.0.1:21012", "Redis"),
            ("/placement --log-level info", "placement, scheduler"),
            ("/cache/scheduler --listen-address=127.0.0.1", "placement, scheduler"),
            ("/sentry --log-level info", "Dapr's other parts"),
            ("/bin/containerd-shim-runc-v2 -namespace k8s.io -id 1f", "Kubernetes"),
            ("/usr/bin/kube-apiserver --etcd-servers=http://127.0.0.1", "Kubernetes"),
            ("/pause", "other"),
            ("python -m http.server", "other"),
        ],
    )
    def test_a_command_line_tells_it(self, line: str, name: str) -> None:
        assert cpu.name_of(line) == name


TREE = {
    1: Process(0, "init", 0.0),
    10: Process(1, "python -m cluster local", 0.0),
    11: Process(10, "python -m chat_service", 0.0),
    12: Process(11, "a child of a child", 0.0),
    20: Process(1, "python -m chat_service", 0.0),
}


class TestWhichProcessesAreWhose:
    def test_all_that_was_started_however_many_steps_away(self) -> None:
        assert cpu.below(10)(TREE) == {10, 11, 12}
        assert cpu.below(11, 20)(TREE) == {11, 12, 20}

    def test_what_has_ended_is_nobodys(self) -> None:
        assert cpu.below(99)(TREE) == set()

    def test_a_nodes_are_all_of_the_container_that_its_kubelet_runs_in(self, tmp_path: Path) -> None:
        processes = {
            1: Process(0, "init", 0.0),
            30: Process(1, "unshare --pid", 0.0),
            31: Process(30, "sh node-init.sh", 0.0),
            32: Process(31, "/cache/kubelet --config kubelet.yaml", 0.0),
            33: Process(31, "containerd-shim-runc-v2", 0.0),
            34: Process(33, "python -m chat_service", 0.0),
            40: Process(1, "python -m offline_model", 0.0),
        }
        for pid in processes:
            (tmp_path / str(pid)).mkdir()
            inside = {31: "1", 32: "7", 33: "8", 34: "9\t1"}.get(pid, "")
            (tmp_path / str(pid) / "status").write_text(f"Name:\tx\nNSpid:\t{pid}\t{inside}\n")

        assert cpu.nodes(tmp_path)(processes) == {31, 32, 33, 34}

    def test_without_a_kubelet_there_is_no_node(self) -> None:
        assert cpu.nodes()(TREE) == set()


class TestCpuTime:
    def test_it_is_read_from_proc_also_with_parentheses_in_a_name(self, tmp_path: Path) -> None:
        for pid, name, line in ((7, "a (b) c", b"python\0-m\0chat_service\0"), (8, "kthread", b"")):
            (tmp_path / str(pid)).mkdir()
            ticks = "10 50" if pid == 7 else "0 0"
            (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) S 3 0 0 0 0 0 0 0 0 0 {ticks} 0 0 20 0 1 0")
            (tmp_path / str(pid) / "cmdline").write_bytes(line)
        (tmp_path / "9").mkdir()  # it has ended between the two reads

        assert cpu.look(tmp_path) == {
            7: Process(3, "python -m chat_service", 60 / cpu.TICKS),
            8: Process(3, "kthread", 0.0),
        }

    def test_this_process_is_among_them(self) -> None:
        assert cpu.look()[os.getpid()].parent == os.getppid()

    def test_it_is_summed_up_by_name_for_the_processes_of_one_system(self) -> None:
        before = {
            1: Process(0, "init", 5.0),
            2: Process(1, "redis-server *:1", 1.0),
            3: Process(1, "python -m chat_service", 9.0),
            4: Process(1, "python -m chat_service", 9.0),
        }
        after = {
            1: Process(0, "init", 6.0),
            2: Process(1, "redis-server *:1", 1.5),
            3: Process(1, "python -m chat_service", 11.0),
            5: Process(3, "python -m chat_service", 0.25),
        }

        assert cpu.spent(before, after, cpu.below(2, 3)) == {"Redis": 0.5, "chat-service": 2.25}


def step(number: int, system: str, turns: int, clients: int = 8, failed: int = 0, **cpu_ms: float) -> Step:
    statuses = {200: turns} | ({503: failed} if failed else {})
    return Step(number, system, clients, Load(10.0, statuses, 0, 5.0, 50.0), cpu_ms, 0.1)


def shown(*steps: Step) -> str:
    printed = io.StringIO()
    report.show(Console(width=200, file=printed), steps, {})
    return printed.getvalue()


class TestReport:
    STEPS = (
        step(1, "peer", 1000, app=8.0, redis=1.0),
        step(1, "ours", 500, app=9.0, sidecar=4.0),
        step(2, "peer", 2000, app=6.0, redis=1.0),
        step(2, "ours", 1500, app=8.0, sidecar=2.0),
        step(3, "peer", 1000, app=7.0, redis=1.0),
        step(3, "ours", 900, app=7.0, sidecar=3.0),
    )

    def test_a_ratio_is_one_of_the_same_round(self) -> None:
        peer, ours = report.summaries(self.STEPS)

        # Of the medians it would be 0.9: each round is a pair of its own.
        assert ours.to_peer == report.Spread(0.75, 0.5, 0.9)
        assert peer.to_peer is None

    def test_a_figure_is_the_median_and_goes_from_the_least_to_the_most(self) -> None:
        peer, ours = report.summaries(self.STEPS)

        assert ours.turns_per_second == report.Spread(90.0, 50.0, 150.0)
        assert peer.cpu_ms == report.Spread(8.0, 7.0, 9.0)
        assert str(ours.turns_per_second) == "90.0 (50.0..150)"

    def test_processes_are_told_apart_most_first(self) -> None:
        _, ours = report.summaries(self.STEPS)

        assert list(ours.by_process.items()) == [("app", 8.0), ("sidecar", 3.0)]

    def test_numbers_of_clients_are_told_apart(self) -> None:
        found = report.summaries([step(1, "peer", 100, 1), step(1, "peer", 900, 32), step(1, "ours", 50, 1)])

        assert [(one.clients, one.to_peer and one.to_peer.median) for one in found] == [(1, None), (32, None), (1, 0.5)]

    def test_without_a_peer_there_is_no_ratio(self) -> None:
        (ours,) = report.summaries([step(1, "ours", 100)])

        assert ours.to_peer is None

    def test_failed_turns_are_said_in_a_line_of_their_own(self) -> None:
        assert "FAILED: 3 turns of ours at 8 clients" in shown(step(1, "peer", 10), step(1, "ours", 9, failed=3))
        assert "FAILED" not in shown(*self.STEPS)

    def test_the_tables_have_every_process_and_the_sum(self) -> None:
        lines = shown(*self.STEPS).splitlines()

        assert any(line.split() == ["app", "7.00", "8.00"] for line in lines)
        assert any(line.split() == ["sum", "8.00", "10.00"] for line in lines)

    def test_the_picture_shows_the_most_clients_and_every_system(self) -> None:
        drawn = picture.spec(report.summaries([*self.STEPS, step(1, "ours", 10, clients=1)]), "today")

        assert drawn["title"]["text"] == "A turn, at 8 clients"
        cpu_rows, speed_rows = (chart["data"]["values"] for chart in drawn["hconcat"])
        assert {(row["bar"], row["process"], row["ms"]) for row in cpu_rows} >= {("ours", "sidecar", 3.0)}
        assert [(row["system"], row["ratio"]) for row in speed_rows] == [("peer", ""), ("ours", "0.75x")]

    def test_processes_of_one_colour_have_letters_of_their_own_in_both_legend_and_bars(self) -> None:
        names = [f"process {number:02}" for number in range(12)]
        drawn = picture.bars({"ours": dict.fromkeys(names, 1.0)}, names, "x").to_dict()
        scale = drawn["layer"][0]["encoding"]["color"]["scale"]
        rows = {row["shown"]: row["letter"] for row in drawn["data"]["values"]}
        assert len(set(scale["range"])) < len(scale["domain"]) == 12
        assert [rows[shown] for shown in scale["domain"]] == list("abcdefghijkl")

    def test_the_picture_is_a_png(self) -> None:
        assert picture.draw(report.summaries(self.STEPS), "today").startswith(b"\x89PNG")

    def test_the_json_has_all_of_it(self) -> None:
        written = json.loads(json.dumps(report.as_json({"revision": "abc"}, self.STEPS, {"ours": {"GET": 2.0}})))

        assert written["about"]["revision"] == "abc"
        assert len(written["steps"]) == len(self.STEPS)
        assert written["steps"][0]["cpu_ms"] == {"app": 8.0, "redis": 1.0}
        assert written["summaries"][1]["to_peer"]["median"] == 0.75
        assert written["calls_a_turn"] == {"ours": {"GET": 2.0}}


METRICS = """\
# TYPE dapr_http_server_request_count counter
dapr_http_server_request_count{app_id="chat-service",method="GET",path="",status="200"} 10
dapr_http_server_request_count{app_id="chat-service",method="PUT",path="",status="204"} 4
dapr_component_state_count{app_id="chat-service",component="statestore",operation="set",success="true"} 3
dapr_http_server_latency_sum{app_id="chat-service"} 99
go_goroutines 12
"""
INFO = """\
# Stats
total_net_input_bytes:1000
total_net_output_bytes:400
# Commandstats
cmdstat_hset:calls=7,usec=30,usec_per_call=4.29,rejected_calls=0,failed_calls=0
cmdstat_config|get:calls=1,usec=8,usec_per_call=8.00,rejected_calls=0,failed_calls=0
"""


class TestCallsOfATurn:
    def test_a_sidecars_counters_are_read_by_what_was_asked(self) -> None:
        assert calls.of_sidecar("chat", METRICS) == {
            "chat http_server_request_count GET 200": 10,
            "chat http_server_request_count PUT 204": 4,
            "chat component_state_count statestore set": 3,
        }

    def test_redis_tells_commands_and_bytes(self) -> None:
        assert calls.of_redis(INFO) == {
            "Redis command hset": 7,
            "Redis command config|get": 1,
            "Redis bytes in": 1000,
            "Redis bytes out": 400,
        }

    def test_counts_of_several_sidecars_are_added_up(self) -> None:
        counters: list[calls.Counters] = [lambda: calls.Counts(a=1, b=2), lambda: calls.Counts(a=3)]

        assert calls.together(counters) == {"a": 4, "b": 2}

    def test_what_came_meanwhile_is_divided_by_the_turns(self) -> None:
        assert calls.per_turn({"a": 10}, {"a": 30, "new": 5, "seldom": 0}, 10) == {"a": 2.0, "new": 0.5}


class FakeWrk(Wrk):
    """Prints what wrk would; remembers which load was asked for."""

    def __init__(self, printed: str = ALL_WELL) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self._printed = printed

    def start(self, url: str, clients: int, seconds: int, *_: Any) -> "subprocess.Popen[str]":
        self.asked.append((url, clients, seconds))
        return subprocess.Popen(["printf", "%s", self._printed], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.time, "sleep", lambda _: None)


@pytest.mark.usefixtures("without_waiting")
class TestOrder:
    def system(self, name: str, counters: calls.Counters | None = None, **options: Any) -> System:
        return System(name, f"http://127.0.0.1:1/{name}", cpu.below(), counters, **options)

    def test_systems_take_turns_round_after_round_and_are_warm_before(self) -> None:
        wrk = FakeWrk()

        steps = list(Run(wrk, Plan(2, 10, [1, 32], 5)).steps([self.system("peer"), self.system("ours")]))

        assert [(one.round, one.system, one.clients) for one in steps] == [
            (number, name, clients) for number in (1, 2) for name in ("peer", "ours") for clients in (1, 32)
        ]
        assert wrk.asked[:3] == [
            ("http://127.0.0.1:1/peer", run.WARM_CLIENTS, run.WARM_SECONDS),
            ("http://127.0.0.1:1/peer", 1, 10),
            ("http://127.0.0.1:1/peer", 32, 10),
        ]

    def test_a_system_is_prepared_before_each_round_of_it(self) -> None:
        prepared: list[str] = []
        both = [self.system(name, prepare=lambda name=name: prepared.append(name)) for name in ("one", "two")]

        list(Run(FakeWrk(), Plan(2, 10, [1], 5)).steps(both))

        assert prepared == ["one", "two", "one", "two"]

    def test_cpu_of_the_load_and_of_others_is_not_the_systems(self) -> None:
        looks = iter(
            [
                {1: Process(0, "init", 0.0), 5: Process(1, "python -m chat_service", 1.0)},
                {1: Process(0, "init", 4.0), 5: Process(1, "python -m chat_service", 3.0)},
            ]
        )
        one = System("ours", HERE, cpu.below(5))

        (only,) = Run(FakeWrk(), Plan(1, 10, [1], 5), lambda: next(looks)).steps([one])

        assert set(only.cpu_ms) == {"chat-service"}
        assert only.elsewhere > 0

    def test_turns_that_failed_are_not_counted_as_turns_that_called(self) -> None:
        counted = Run(FakeWrk(), Plan(0, 10, [1], 5))
        numbers = iter([calls.Counts(get=100), calls.Counts(get=100 + 2 * (1034 + 8))])
        # The last turn of each client is taken, too, though nobody waits for it any more.
        assert counted.calls(self.system("ours", lambda: next(numbers)), 8) == {"get": 2.0}

        failing = Run(FakeWrk(f"{PRINTED}Status 200: 9\nStatus 503: 1\n"), Plan(0, 10, [1], 5))
        with pytest.raises(CommandError, match="ours: 1 turns failed"):
            failing.calls(self.system("ours", calls.Counts), 8)

    def test_a_load_is_ended_when_what_watches_it_breaks_off(self) -> None:
        class Sleeping(FakeWrk):
            def start(self, *_: Any, **__: Any) -> "subprocess.Popen[str]":
                self.process = subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE, text=True)
                return self.process

        def interrupted() -> cpu.Processes:
            raise KeyboardInterrupt

        wrk = Sleeping()
        with pytest.raises(KeyboardInterrupt):
            Run(wrk, Plan(1, 10, [1], 5), interrupted)._step(self.system("ours"), 1, 1)
        assert wrk.process.poll() is not None
        assert wrk.process.stdout is not None
        wrk.process.stdout.close()


class TestChildren:
    def test_one_is_ended_by_its_id_also_after_a_failure(self, tmp_path: Path) -> None:
        started = Child("it", ["sleep", "60"], tmp_path / "log")
        assert psutil.pid_exists(started.pid)

        with pytest.raises(ZeroDivisionError), started:
            raise ZeroDivisionError
        assert not psutil.pid_exists(started.pid)

    def test_one_that_does_not_listen_is_killed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(children, "END_SECONDS", 0.1)
        deaf = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done"]
        with Child("it", deaf, tmp_path / "log") as child:
            while "deaf" not in (tmp_path / "log").read_text():
                pass
        assert not psutil.pid_exists(child.pid)

    def test_one_that_has_ended_is_named_with_the_end_of_what_it_said(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with (
            Child("peer's app", ["sh", "-c", "echo no such module; exit 3"], tmp_path / "log") as child,
            pytest.raises(CommandError, match=r"peer's app has ended \(exit code 3\)"),
        ):
            child.wait_for_turn(HERE, "u")
        assert "no such module" in capfd.readouterr().err

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_a_signal_ends_what_was_started(self, number: signal.Signals, tmp_path: Path) -> None:
        script = (
            "import signal, sys, time, pathlib\n"
            # Whoever runs the tests in the background may have them ignore it.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from bench import __main__ as it\n"
            "from bench.children import Child\n"
            "def bench(_):\n"
            "    with Child('it', ['sleep', '60'], pathlib.Path(sys.argv[1])) as child:\n"
            "        print(child.pid, flush=True)\n"
            "        time.sleep(60)\n"
            "it._bench = bench\n"
            "sys.exit(it.main([]))\n"
        )
        path = os.pathsep.join((str(ROOT / "load-tests"), str(ROOT)))
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "log")],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            assert psutil.pid_exists(child)
            process.send_signal(number)
            assert process.wait(60) == 130
        assert not psutil.pid_exists(child)


class Deployments:
    """As much of a cluster as is asked for."""

    def __init__(self, replicas: int, **variables: str) -> None:
        self.replicas = replicas
        self.asked: list[int] = []
        self.variables = {"MODEL_PROVIDER": "offline", "LATENCY_MS": "0", **variables}
        self.apps = self

    def read_namespaced_deployment(self, *_: str) -> Any:
        env = [SimpleNamespace(name=name, value=value) for name, value in self.variables.items()]
        pod = SimpleNamespace(spec=SimpleNamespace(containers=[SimpleNamespace(env=env, image="image:1")]))
        return SimpleNamespace(spec=SimpleNamespace(replicas=self.replicas, template=pod))

    def patch_namespaced_deployment_scale(self, _: str, __: str, body: Any) -> None:
        self.replicas = body["spec"]["replicas"]
        self.asked.append(self.replicas)

    def pods(self, *_: str) -> list[Any]:
        return [SimpleNamespace()] * self.replicas

    ready_pods = pods


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Deployments], Target]:
    def deploy(deployments: Deployments) -> Target:
        reach = SimpleNamespace(url=lambda _: "http://198.18.0.1:30010")
        monkeypatch.setattr(systems, "Kube", lambda _: deployments)
        monkeypatch.setattr(systems, "turn_problem", lambda *_: None)
        monkeypatch.setattr(systems.Reach, "__init__", lambda *_: None)
        monkeypatch.setattr(systems.Reach, "__enter__", lambda _: reach)
        monkeypatch.setattr(systems.Reach, "__exit__", lambda *_: None)
        return Target("bare", "/config", "")

    return deploy


class Stream(BaseHTTPRequestHandler):
    """Answers a turn with events."""

    protocol_version = "HTTP/1.1"
    events = b""
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        """One turn."""
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.events)))
        self.end_headers()
        self.wfile.write(self.events)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def stream() -> Iterator[Callable[[bytes], str]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def answering(events: bytes) -> str:
            Stream.events, Stream.asked = events, []
            return f"http://127.0.0.1:{server.server_port}/chat/"

        yield answering
        server.shutdown()


class TestFirstTokens:
    def test_the_middle_of_some_turns_of_one_user_is_told(self, stream: Callable[[bytes], str]) -> None:
        url = stream(b"event: token\ndata: {}\n\nevent: message\ndata: {}\n\n")

        assert first_token.measure(url, "somebody") > 0
        assert [turn["user_id"] for turn in Stream.asked] == ["somebody"] * first_token.TURNS

    def test_a_stream_without_a_token_is_said(self, stream: Callable[[bytes], str]) -> None:
        with pytest.raises(CommandError, match="ended without a token"):
            first_token.measure(stream(b"event: error\ndata: {}\n\n"), "somebody")

    @pytest.mark.usefixtures("without_waiting")
    def test_they_are_measured_at_one_client_of_those_who_stream(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(first_token, "measure", lambda *_: 12.5)
        both = [System(name, HERE, cpu.below(), streams=name == "ours") for name in ("peer", "ours")]

        steps = list(Run(FakeWrk(), Plan(1, 10, [1, 8], 5)).steps(both))

        assert [(one.system, one.clients, one.first_token_ms) for one in steps] == [
            ("peer", 1, None),
            ("peer", 8, None),
            ("ours", 1, 12.5),
            ("ours", 8, None),
        ]


class TestCallsOfActors:
    CALLED = PRINTED.replace("Running", f"{actor_calls.ALL_ANSWERED}\nRunning")

    def every_one(self, printed: str) -> actor_calls.Pass:
        caller = actor_calls.Caller(FakeWrk(printed), "http://127.0.0.1:1", range(50), at_once=8)
        return caller.all("write", "ClearHistory", {}, 1)

    def test_wrong_answers_are_failures_by_what_they_were(self) -> None:
        found = self.every_one(f"{self.CALLED}Failed 3: status 500 ERR_ACTOR_INVOKE_METHOD\nFailed 2: turn_no 7\n")

        assert found.failed == {"status 500 ERR_ACTOR_INVOKE_METHOD": 3, "turn_no 7": 2}
        assert (found.calls, found.p50_ms, found.p99_ms) == (50, 292.2, 1060.0)

    def test_calls_that_got_no_answer_are_failures(self) -> None:
        assert self.every_one(self.CALLED).failed == {}
        assert self.every_one(PRINTED).failed == {"no answer": 1}
        lost = f"{PRINTED}  Socket errors: connect 1, read 2, write 0, timeout 4\n"
        assert self.every_one(lost).failed == {"no answer": 7}


class TestActivations:
    def test_what_cannot_be_is_refused_in_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert activations.main(["--users", "none"]) == 2
        assert "'none' is not a whole number from 1 to 1,000,000" in capsys.readouterr().err


class TestLong:
    POINTS = (
        long.Point(long.LENGTHS, 10, 20.0, {"chat-service": 9.0, "Redis": 1.0}),
        long.Point(long.LENGTHS, 1000, 21.0, {"chat-service": 9.5, "Redis": 1.0}),
        long.Point(long.USERS, 1, 20.0, {"chat-service": 9.0}),
    )

    def test_a_message_that_was_not_answered_with_its_number_is_said(self, stream: Callable[[bytes], str]) -> None:
        with closing(long.Person(stream(b'{"sequence": 1, "reply": ""}'), "somebody")) as person:
            assert len(person.say_until(1)) == 1
            with pytest.raises(CommandError, match="message 2 was answered 200"):
                person.say_until(2)
        assert [turn["text"] for turn in Stream.asked] == ["message 1", "message 2"]

    def test_the_picture_has_a_panel_for_sessions_and_one_for_users(self) -> None:
        panels = long.spec(self.POINTS, "today")["hconcat"]

        assert [panel["layer"][0]["encoding"]["x"]["title"] for panel in panels] == [long.LENGTHS, long.USERS]
        assert {row["bar"] for row in panels[0]["data"]["values"]} == {"10", "1,000"}

    def test_steps_are_read_in_rising_order(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert long.parse(["--messages", "1000,10", "--users", "5"]).messages == [10, 1000]
        assert long.main(["--messages", "5"]) == 2
        assert "'5' is not a whole number from 10" in capsys.readouterr().err


class TestTheCluster:
    def test_it_is_measured_with_each_number_of_pods_and_put_back(
        self, deployed: Callable[[Deployments], Target], tmp_path: Path
    ) -> None:
        cluster = Deployments(2)
        target = deployed(cluster)

        def interrupted() -> None:
            with systems.started(["cluster"], [1, 3], target, tmp_path) as up:
                assert [system.name for system in up] == ["cluster, 1 pod", "cluster, 3 pods"]
                for system in up:
                    system.prepare()
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert cluster.asked == [1, 3, 2]

    @pytest.mark.parametrize(
        ("variable", "mend"), [("MODEL_PROVIDER", "make up MODEL=offline"), ("LATENCY_MS", "set its latency to 0")]
    )
    def test_a_model_that_takes_time_is_refused(
        self, deployed: Callable[[Deployments], Target], tmp_path: Path, variable: str, mend: str
    ) -> None:
        target = deployed(Deployments(2, **{variable: {"MODEL_PROVIDER": "gemini"}.get(variable, "250")}))

        with pytest.raises(CommandError, match=mend), systems.started(["cluster"], [1], target, tmp_path):
            pass

    def test_a_cluster_that_is_not_up_is_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def none_is_up(*_: str) -> Target:
            raise CommandError("no cluster is up")

        monkeypatch.setattr(systems, "recorded", none_is_up)

        assert systems.cluster_that_is_up("", "") is None

    def test_one_that_only_a_port_forward_reaches_is_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(systems, "recorded", lambda *_: Target("current", "/config", "mine"))

        assert systems.cluster_that_is_up("", "") is None


class TestOptions:
    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ("--systems peer,mine", "'mine' is none of peer"),
            ("--systems=", "'' is none of peer"),
            ("--clients 1,x", "'x' is not a whole number from 1 to 1,000"),
            ("--rounds 0", "--rounds 0 measures nothing without --calls"),
            ("--seconds 2", "'2' is not a whole number from 3 to 600"),
            ("--pods 0", "'0' is not a whole number from 1 to 9"),
            ("--frobnicate", "unrecognized arguments: --frobnicate"),
        ],
    )
    def test_what_cannot_be_is_refused_in_one_line(
        self, given: str, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert command_line.main(given.split()) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert said in line

    def test_a_cluster_that_is_asked_for_and_not_up_is_said(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(systems, "cluster_that_is_up", lambda *_: None)

        assert command_line.main(["--systems", "cluster"]) == 1
        assert "`make up` first" in capsys.readouterr().err

    def test_lists_are_read_in_their_order_and_once(self) -> None:
        options = command_line.parse(["--systems", "cluster,peer", "--clients", "32,1,32"])

        assert (options.systems, options.clients) == (["cluster", "peer"], [32, 1])

    def test_make_hands_its_variables_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        became: list[Any] = []
        monkeypatch.setattr(command.os, "execve", lambda *given: became.append(given))

        command.bench("bench", "--rounds 5 --to 'a folder'", "bare", "team-a")

        ((_, words, env),) = became
        assert words[1:] == ["-m", "bench", "--rounds", "5", "--to", "a folder"]
        assert (env["CLUSTER"], env["NAMESPACE"]) == ("bare", "team-a")

    def test_a_quote_that_is_not_closed_is_said(self) -> None:
        with pytest.raises(CommandError, match="BENCH_OPTIONS=--to 'a: No closing quotation"):
            command.bench("bench", "--to 'a", "", "")
