"""`make local`: what it would start, what it says when something is missing or in the way, and how it stops.

The programs are stand-ins here; tests/e2e/test_local.py starts the real ones.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml

from cluster import __main__ as command_line
from cluster import binaries, debian
from cluster.errors import CommandError
from cluster.local import command, layout, ports, processes, programs, redis, run, runfile, secretfile
from cluster.local.programs import Program, Programs, Service
from cluster.versions import ROOT

TOKEN = "0123456789abcdef"
RUN_FILE = yaml.safe_load((ROOT / "components" / "dapr.yaml").read_text())


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A folder of its own for what a run writes."""
    for name, place in {
        "STATE": "",
        "LOGS": "log",
        "DATA": "redis",
        "REMINDERS": "scheduler",
        "SIDECARS": "sidecars",
        "SECRETS": "sidecars/components/secrets.json",
    }.items():
        for module in (layout, command, processes, secretfile, run):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, tmp_path / place)
    monkeypatch.setattr(programs, "NAMES", tmp_path / "sidecars" / "names.yaml")
    return tmp_path


@pytest.fixture
def machine(monkeypatch, folder):
    """A machine that has everything, where all ports are free and nothing is started. Tests change what they need."""
    for variable in ("MODEL", "GEMINI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(secretfile, "USERS", folder / "secrets.json")
    monkeypatch.setattr(ports, "taken", lambda _: {})
    monkeypatch.setattr(redis, "problem", lambda: None)
    monkeypatch.setattr(redis, "plan", list)
    monkeypatch.setattr(redis, "server", lambda: redis.Server(("redis-server",), {}, "7.0.15"))
    monkeypatch.setattr(binaries, "missing", lambda _: [])
    monkeypatch.setattr(command, "Run", lambda *_: pytest.fail("started"))
    return monkeypatch


def planned(model=""):
    """The programs that would be started."""
    apps = programs.with_model(runfile.apps(), model)
    return programs.programs(apps, ("redis-server",), {}, TOKEN)


def services(model=""):
    return {service.app.name: service for service in planned(model).services}


def options(program):
    return dict(word.removeprefix("--").split("=", 1) for word in program.command[1:])


class TestRunFile:
    def test_every_app_is_started_with_the_ports_and_settings_of_the_run_file(self):
        started = services()
        assert list(started) == [app["appID"] for app in RUN_FILE["apps"]]
        for app in RUN_FILE["apps"]:
            service = started[app["appID"]]
            assert service.port == app["appPort"]
            assert service.app.command == (sys.executable, *app["command"][1:])
            assert {**RUN_FILE["common"]["env"], **app["env"]}.items() <= service.app.env.items()

    @pytest.mark.parametrize("name", ["chat-service", "agent-memory-service"])
    def test_a_sidecar_is_told_what_the_dapr_cli_would_tell_it(self, name):
        (app,) = [app for app in RUN_FILE["apps"] if app["appID"] == name]
        told, common = options(services()[name].sidecar), RUN_FILE["common"]
        assert told["app-id"] == name
        assert told["app-port"] == str(app["appPort"])
        assert told["dapr-http-port"] == str(app["daprHTTPPort"])
        assert told["dapr-grpc-port"] == str(app["daprGRPCPort"])
        assert told["dapr-internal-grpc-port"] == str(app["daprInternalGRPCPort"])
        assert told["metrics-port"] == str(app["metricsPort"])
        assert told["max-body-size"] == common["maxBodySize"]
        assert told["enable-app-health-check"] == "true"
        assert told["app-health-check-path"] == common["appHealthCheckPath"]
        assert told["app-health-probe-interval"] == str(common["appHealthProbeInterval"])
        assert told["app-health-probe-timeout"] == str(common["appHealthProbeTimeout"])
        assert told["app-health-threshold"] == str(common["appHealthThreshold"])
        assert told["resources-path"] == str(ROOT / "components")
        assert told["config"] == f"{ROOT}/components/configuration.yaml,{programs.NAMES}"

    def test_what_needs_no_sidecar_gets_none(self):
        assert services()["offline-model"].sidecar is None

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (
                "apps: [{appID: a, appPort: 1, command: [a], appProtocol: grpc}]",
                "does not know appProtocol; take it out",
            ),
            (
                "apps: [{appID: a, appPort: 1, command: [a], daprHTTPPort: 3500}]",
                "a has some of daprHTTPPort, daprGRPC",
            ),
            ("apps: [{appID: a, command: [a]}]", "is not the run file that `make local` can read: 'appPort'"),
            ("apps: [", "is not the run file that `make local` can read: while parsing"),
            ("", "is not the run file that `make local` can read"),
        ],
    )
    def test_a_file_that_cannot_be_followed_is_named_in_one_line(self, tmp_path, content, said):
        (tmp_path / "dapr.yaml").write_text(content)
        with pytest.raises(CommandError) as raised:
            runfile.apps(tmp_path / "dapr.yaml")
        assert str(tmp_path / "dapr.yaml") in str(raised.value)
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)


class TestPrograms:
    def test_no_port_is_used_twice(self):
        used = [port for program in planned() for port in program.ports]
        assert len(used) == len(set(used))
        assert {8010, 8001, 8002, 3500, 3501, 6379} <= set(used)

    def test_no_port_is_one_that_the_system_hands_to_whatever_connects_somewhere(self):
        assert all(1024 <= port < 32768 for program in planned() for port in program.ports)

    def test_redis_is_where_the_components_look_for_it(self):
        for name in ("statestore", "pubsub"):
            component = yaml.safe_load((ROOT / "components" / f"{name}.yaml").read_text())
            (host,) = [item["value"] for item in component["spec"]["metadata"] if item["name"] == "redisHost"]
            assert host == f"localhost:{layout.REDIS_PORT}"

    def test_the_streams_that_are_trimmed_are_the_topics_of_the_components(self):
        topics = [
            yaml.safe_load((ROOT / "components" / f"{name}.yaml").read_text())["spec"]["topic"]
            for name in ("subscription", "deadletters")
        ]
        assert planned().trim.command[-4:] == ("127.0.0.1", str(layout.REDIS_PORT), *topics)

    def test_secrets_are_where_the_component_looks_for_them(self):
        component = yaml.safe_load((ROOT / "components" / "secretstore.yaml").read_text())
        (place,) = [item["value"] for item in component["spec"]["metadata"] if item["name"] == "secretsFile"]
        assert services()["chat-service"].sidecar.folder / place == layout.SECRETS

    def test_everything_listens_on_the_loopback_and_the_sidecars_say_so_to_others(self):
        for program in planned():
            shown = " ".join(program.command)
            assert "127.0.0.1" in shown or program.env["HOST"] == "127.0.0.1"
            assert "0.0.0.0" not in shown
        for name in ("chat-service", "agent-memory-service"):
            sidecar = services()[name].sidecar
            assert sidecar.env["DAPR_HOST_IP"] == "127.0.0.1"
            told = options(sidecar)
            assert told["scheduler-host-address"] == f"127.0.0.1:{layout.SCHEDULER_PORT}"

    def test_every_sidecar_comes_to_placement_by_the_relay(self):
        (relay,) = [program for program in planned() if program.name == "placement-relay"]
        (listens,) = relay.ports
        assert relay.command[1:3] == ("-m", "placement_relay")
        told = dict(word.removeprefix("--").split("=", 1) for word in relay.command[3:])
        assert told == {"listen": f"127.0.0.1:{listens}", "placement": f"127.0.0.1:{layout.PLACEMENT_PORT}"}
        sidecars = [service.sidecar for service in services().values() if service.sidecar is not None]
        assert {options(sidecar)["placement-host-address"] for sidecar in sidecars} == {told["listen"]}

    def test_sidecars_find_each_other_without_asking_the_network(self):
        resolution = yaml.safe_load(programs.names(runfile.apps()))["spec"]["nameResolution"]
        assert resolution["component"] == "kubernetes"
        inner = {"chat-service": 3520, "agent-memory-service": 3521}
        assert resolution["configuration"]["template"] == "".join(
            f'{{{{if eq .ID "{name}"}}}}127.0.0.1:{port}{{{{end}}}}' for name, port in inner.items()
        )

    def test_service_and_sidecar_share_a_token_and_the_model_has_none(self):
        for name, service in services().items():
            if service.sidecar is None:
                assert "APP_API_TOKEN" not in service.app.env, name
            else:
                assert service.app.env["APP_API_TOKEN"] == service.sidecar.env["APP_API_TOKEN"] == TOKEN

    def test_each_run_has_a_token_of_its_own(self, machine):
        made = [command._provided(runfile.apps()).services[0].app.env["APP_API_TOKEN"] for _ in range(2)]
        assert len(made[0]) >= 32
        assert made[0] != made[1]

    def test_programs_do_not_see_the_key_nor_a_namespace(self, monkeypatch):
        monkeypatch.setenv("GEMINI_API_KEY", "secret")
        monkeypatch.setenv("NAMESPACE", "")  # make exports it, and Dapr takes it for its own
        monkeypatch.setenv("TURN_WHEN_BUSY", "reject")
        for program in planned():
            seen = program.environment()
            assert not {"GEMINI_API_KEY", "NAMESPACE"} & seen.keys()
            assert seen["TURN_WHEN_BUSY"] == "reject"

    def test_programs_reach_each_other_past_a_proxy_of_the_environment(self, monkeypatch):
        monkeypatch.setenv("http_proxy", "http://proxy:3128")
        monkeypatch.setenv("no_proxy", "example.com")
        monkeypatch.delenv("NO_PROXY", raising=False)
        for program in planned():
            seen = program.environment()
            assert seen["http_proxy"] == "http://proxy:3128"
            assert seen["no_proxy"] == "example.com,localhost,127.0.0.1"
            assert seen["NO_PROXY"] == "localhost,127.0.0.1"

    def test_gemini_answers_at_its_own_address_and_the_offline_model_is_not_started(self):
        started = services("gemini")
        assert started.keys() == {"chat-service", "agent-memory-service"}
        for service in started.values():
            assert service.app.env["MODEL_PROVIDER"] == "gemini"
            assert service.app.env["MODEL_BASE_URL"] == ""

    def test_the_offline_model_can_be_asked_for_where_the_run_file_names_another(self, monkeypatch):
        apps = programs.with_model(runfile.apps(), "gemini")
        (model,) = [app for app in runfile.apps() if app.app_id == "offline-model"]
        back = programs.with_model([*apps, model], "offline")
        assert back[0].env["MODEL_PROVIDER"] == "offline"
        assert back[0].env["MODEL_BASE_URL"] == f"http://127.0.0.1:{model.port}/v1"
        assert back[-1].app_id == "offline-model"


class TestSecrets:
    @pytest.fixture
    def users(self, machine, folder):
        """Writes the user's own file."""
        return (folder / "secrets.json").write_text

    def test_the_offline_model_needs_none(self, machine):
        found, said = secretfile.collect("offline", "")
        assert found == {}
        assert "the secret store is empty" in said

    def test_those_of_the_user_are_taken(self, users):
        users('{"gemini-api-key": "mine", "other": "thing"}')
        found, said = secretfile.collect("gemini", "")
        assert found == {"gemini-api-key": "mine", "other": "thing"}
        assert "secrets.json" in said

    def test_a_key_of_the_environment_wins_and_the_users_file_stays_as_it_is(self, users, folder):
        users('{"gemini-api-key": "mine"}')
        assert secretfile.collect("gemini", "newer")[0] == {"gemini-api-key": "newer"}
        assert json.loads((folder / "secrets.json").read_text()) == {"gemini-api-key": "mine"}

    @pytest.mark.parametrize("content", [None, "{}", (ROOT / "components" / "secrets.json.example").read_text()])
    def test_gemini_without_a_key_of_ones_own_is_refused_before_anything_starts(self, machine, folder, content, capsys):
        if content is not None:
            (folder / "secrets.json").write_text(content)
        assert command_line.main(["local", "--model", "gemini"]) == 2
        assert "GEMINI_API_KEY=<your key> make local MODEL=gemini, or copy" in capsys.readouterr().err

    @pytest.mark.parametrize(("content", "said"), [("{", "cannot be read as JSON"), ("[]", "is no JSON object")])
    def test_a_file_that_is_something_else_is_named(self, users, content, said):
        users(content)
        with pytest.raises(CommandError, match=said):
            secretfile.collect("offline", "")

    def test_what_is_written_nobody_else_can_read(self, tmp_path):
        path = tmp_path / "components" / "secrets.json"
        for secrets in ({"gemini-api-key": "old"}, {"gemini-api-key": "new"}):
            secretfile.write(secrets, path)
        assert json.loads(path.read_text()) == {"gemini-api-key": "new"}
        assert path.stat().st_mode & 0o777 == 0o600

    def test_they_are_gone_when_the_run_is_over(self, users, folder, machine):
        users('{"gemini-api-key": "mine"}')
        seen = []

        class Ends:
            def __init__(self, *_):
                pass

            def go(self):
                seen.append(json.loads(layout.SECRETS.read_text()))
                raise CommandError("it has ended")

        machine.setattr(command, "Run", Ends)
        assert command_line.main(["local"]) == 1
        assert seen == [{"gemini-api-key": "mine"}]
        assert not layout.SECRETS.exists()


class TestPorts:
    @pytest.fixture(params=[("127.0.0.1", socket.AF_INET), ("0.0.0.0", socket.AF_INET), ("::1", socket.AF_INET6)])
    def port(self, request):
        """A port on which somebody listens."""
        address, family = request.param
        with socket.socket(family) as listening:
            listening.bind((address, 0))
            listening.listen()
            yield listening.getsockname()[1]

    def test_who_has_one_is_named(self, port):
        assert ports.taken([port]) == {port: f"{psutil.Process().name()} (process {os.getpid()})"}

    def test_a_free_one_is_not(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            number = free.getsockname()[1]
        assert ports.taken([number]) == {}

    def test_who_has_one_is_named_where_only_ones_own_are_shown(self, port, monkeypatch):
        def denied(_):
            raise psutil.AccessDenied

        monkeypatch.setattr(psutil, "net_connections", denied)
        assert ports.taken([port])[port].endswith(f"(process {os.getpid()})")

    def test_somebody_else_who_cannot_be_seen_is_said_to_be_that(self, port, monkeypatch):
        monkeypatch.setattr(psutil, "net_connections", lambda _: [])
        assert ports.taken([port]) == {port: "a process of another user"}

    def test_the_line_names_port_use_and_holder(self):
        found = {8010: "python (process 7)", 3500: "daprd (process 8)", 3501: "daprd (process 8)"}
        uses = {8010: "chat-service", 3500: "HTTP port", 3501: "another HTTP port"}
        assert ports.told(found, uses) == (
            "port 8010 (chat-service): taken by python (process 7); "
            "ports 3500 (HTTP port), 3501 (another HTTP port): taken by daprd (process 8)"
        )


class TestInTheWay:
    def test_taken_ports_are_one_line_with_the_mend(self, machine, capsys):
        machine.setattr(ports, "taken", lambda _: {8010: "python (process 7)"})
        assert command_line.main(["local"]) == 1
        assert capsys.readouterr().err == (
            "error: port 8010 (chat-service): taken by python (process 7); end that first\n"
        )

    def test_the_redis_of_dapr_init_is_thought_of(self, machine, capsys):
        machine.setattr(ports, "taken", lambda _: {6379: "a process of another user"})
        assert command_line.main(["local"]) == 1
        assert "port 6379 (Redis): taken by a process of another user; end that first" in (
            said := capsys.readouterr().err
        )
        assert "docker stop dapr_redis" in said

    def test_all_that_is_missing_is_named_at_once(self, machine, capsys):
        machine.setattr(redis, "problem", lambda: "no Redis: install it")
        machine.setattr(binaries, "missing", list)
        machine.setattr(binaries, "go_problem", lambda _: "no Go: install it")
        assert command_line.main(["local"]) == 1
        assert capsys.readouterr().err == "error: no Redis: install it; no Go: install it\n"

    def test_what_is_fetched_and_built_is_said_before(self, machine, capsys):
        machine.setattr(redis, "plan", lambda: ["unpack Debian packages"])
        machine.setattr(binaries, "missing", list)
        machine.setattr(binaries, "go_problem", lambda _: None)
        machine.setattr(binaries, "build", lambda tools: print("building", *(tool.name for tool in tools)))
        command._provided(runfile.apps())
        first, second, then = [line.partition("] ")[2] or line for line in capsys.readouterr().out.splitlines()][:3]
        assert first == "first: unpack Debian packages"
        assert second.startswith("first: build from Go modules: daprd, dapr-control-plane (once; about ")
        assert then == "building daprd dapr-control-plane"

    def test_a_model_that_make_cannot_choose_is_a_wrong_call(self, machine, capsys):
        assert command_line.main(["local", "--model", "gpt"]) == 2
        assert "MODEL=gpt is none of offline, gemini: for others edit MODEL_PROVIDER in" in capsys.readouterr().err

    def test_a_folder_of_another_user_is_named(self, machine, folder, capsys):
        def denied(*_):
            raise PermissionError(13, "Permission denied", f"{folder}/log/redis.log")

        machine.setattr(command, "Run", denied)
        assert command_line.main(["local"]) == 1
        assert f"{folder}/log/redis.log is another user's: delete {folder}, or" in capsys.readouterr().err

    def test_a_second_run_in_one_checkout_is_told_of_the_first(self, machine, folder, capsys):
        (folder / "lock").write_text("4711\n")
        with (folder / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert command_line.main(["local"]) == 1
        said = capsys.readouterr().err
        assert "`make local` runs already in this checkout (process 4711)" in said
        assert "`kill 4711`" in said


class TestRedis:
    @pytest.fixture
    def path(self, monkeypatch, tmp_path):
        """Makes a PATH with a redis-server that says it has a version."""

        def make(version):
            if version:
                script = tmp_path / "redis-server"
                script.write_text(f"#!/bin/sh\necho Redis server v={version} sha=00000000:0 malloc=libc bits=64\n")
                script.chmod(0o755)
            monkeypatch.setenv("PATH", str(tmp_path))

        return make

    def test_the_machines_own_is_taken(self, path, tmp_path):
        path("7.4.1")
        assert redis.problem() is None
        assert redis.plan() == []
        assert redis.server() == ((str(tmp_path / "redis-server"),), {}, "7.4.1")

    def test_one_that_is_too_old_is_named_with_the_mend(self, path, tmp_path):
        path("6.0.16")
        assert redis.problem() == f"{tmp_path}/redis-server is 6.0.16, which is too old: {redis.MEND}"

    def test_without_one_and_without_debians_packages_it_has_to_be_installed(self, path):
        path(None)
        assert redis.problem() == f"redis-server is not installed, or not in PATH: {redis.MEND}"

    def test_without_one_debians_is_unpacked_and_finds_its_libraries(self, path, monkeypatch, tmp_path, capsys):
        path(None)
        unpacked = tmp_path / "unpacked"

        def unpack(packages, *, with_what_they_need):
            assert with_what_they_need
            (unpacked / "usr" / "bin").mkdir(parents=True)
            (unpacked / "usr" / "lib" / "x").mkdir(parents=True)
            (unpacked / "usr" / "lib" / "x" / "libjemalloc.so.2").touch()
            script = unpacked / "usr" / "bin" / "redis-server"
            script.write_text("#!/bin/sh\necho Redis server v=7.0.15\n")
            script.chmod(0o755)

        monkeypatch.setattr(debian, "has_apt", lambda: True)
        monkeypatch.setattr(debian, "unpacked", lambda _: unpacked)
        monkeypatch.setattr(debian, "unpack", unpack)
        assert redis.problem() is None
        assert "unpack Debian packages into" in redis.plan()[0]
        server = redis.server()
        assert server.command == (str(unpacked / "usr" / "bin" / "redis-server"),)
        assert server.env == {"LD_LIBRARY_PATH": str(unpacked / "usr" / "lib" / "x")}
        assert redis.plan() == []

    def test_packages_that_are_not_to_be_had_are_one_line_with_the_mend(self, path, monkeypatch, tmp_path):
        def unpack(*_, **__):
            raise CommandError("apt-get -q failed: no such package")

        path(None)
        monkeypatch.setattr(debian, "has_apt", lambda: True)
        monkeypatch.setattr(debian, "unpacked", lambda _: tmp_path / "unpacked")
        monkeypatch.setattr(debian, "unpack", unpack)
        with pytest.raises(
            CommandError, match=r"Debian's cannot be fetched \(apt-get -q failed.*\): install Redis 6.2"
        ):
            redis.server()


class TestDebian:
    @pytest.fixture
    def apt(self, monkeypatch, tmp_path):
        """Debian's tools in the place of which a test puts a script of its own; what apt-get was asked for."""
        (tmp_path / "bin").mkdir()
        asked = tmp_path / "asked"

        def make(script):
            for name, body in {"apt-get": f'echo "$*" >>{asked}\n{script}', "dpkg-deb": 'touch "$3/unpacked"'}.items():
                (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
                (tmp_path / "bin" / name).chmod(0o755)
            return lambda: asked.read_text().splitlines()

        monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
        monkeypatch.setattr(debian, "CACHE", tmp_path / "cache")
        return make

    def test_what_packages_need_and_the_machine_lacks_is_unpacked_with_them(self, apt):
        asked = apt(
            """case "$*" in
            *--simulate*) echo "NOTE: only a simulation"; echo "Inst libjemalloc2 (5.3.0-1 Debian:12/stable [amd64])"
                echo "Inst redis-tools (5:7.0.15 Debian:12/stable [amd64])"; echo "Conf redis-tools";;
            *download*) touch some.deb;;
            esac"""
        )
        debian.unpack(redis.PACKAGES, with_what_they_need=True)
        assert asked()[-1].endswith("download redis-server redis-tools libjemalloc2")
        assert (debian.unpacked(redis.PACKAGES) / "unpacked").exists()

    def test_who_may_not_update_the_package_lists_is_told_the_first_reason(self, apt, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        asked = apt("echo 'E: Unable to locate package redis-server' >&2; exit 100")
        with pytest.raises(CommandError, match="apt-get -q failed: E: Unable to locate package redis-server"):
            debian.unpack(redis.PACKAGES)
        assert len(asked()) == 1


class TestLeftovers:
    @pytest.fixture
    def left(self, folder):
        """Starts a process as a run that was killed has left it."""
        started = []

        def start(name, where=folder, script="import time; print('up', flush=True); time.sleep(60)"):
            process = subprocess.Popen(
                [sys.executable, "-c", script],
                env=os.environ | {processes.MARK: f"{name} {where}"},
                stdout=subprocess.PIPE,
            )
            assert process.stdout.readline() == b"up\n"
            started.append(process)
            return process

        yield start
        for process in started:
            process.stdout.close()
            process.kill()
            process.wait()

    def test_they_are_known_by_their_environment(self, left, tmp_path):
        process = left("chat-service")
        left("chat-service", tmp_path / "another-checkout")
        assert [str(item) for item in processes.leftovers()] == [f"chat-service (process {process.pid})"]

    def test_the_next_run_ends_them_and_says_so_and_redis_is_last(self, left, machine, capsys):
        order = left("redis"), left("chat-service")
        command._clear_away()
        assert all(process.poll() is not None or process.wait(1) for process in order)
        said = capsys.readouterr().out
        assert "ended, left by a run that was killed: " in said
        assert f"redis (process {order[0].pid})" in said
        assert processes.leftovers() == []

    def test_one_that_does_not_listen_is_killed(self, left, monkeypatch):
        monkeypatch.setattr(processes, "END_SECONDS", 0.3)
        deaf = left(
            "chat-service",
            script="import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
        )
        processes.end(processes.leftovers())
        assert deaf.wait(5) == -signal.SIGKILL


def _program(name, script="", *, ready=lambda: True):
    body = f"import pathlib, signal, sys, time\n{script}\nprint('up', flush=True)\ntime.sleep(60)\n"
    return Program(name, (sys.executable, "-c", body), {}, ready)


class TestRun:
    @pytest.fixture
    def ends(self, folder, monkeypatch):
        """Names of the programs in the order in which they were asked to go."""
        order = []
        terminate = processes.Process.terminate

        def noted(process):
            if process.name not in order:
                order.append(process.name)
            terminate(process)

        monkeypatch.setattr(processes.Process, "terminate", noted)
        monkeypatch.setattr(Service, "drained", lambda _: True)
        yield order
        assert processes.leftovers() == []

    @pytest.fixture
    def all_of(self, folder):
        """All programs of a run, where tests can put others in the place of some."""

        def make(**instead):
            def one(name):
                return instead.get(name.replace("-", "_").replace(".", "_")) or _program(name)

            return Programs(
                one("redis"),
                one("redis.trim"),
                (one("placement"),),
                (
                    Service(one("chat-service"), 1, one("chat-service.sidecar"), 2),
                    Service(one("agent-memory-service"), 3, one("agent-memory-service.sidecar"), 4),
                    Service(one("offline-model"), 5, None, None),
                ),
            )

        return make

    def test_it_stops_in_order_when_it_is_asked_to(self, all_of, ends, capsys):
        def ask():
            os.kill(os.getpid(), signal.SIGINT)

        run.Run(all_of(), ask).go()
        assert ends == [
            "chat-service",
            "chat-service.sidecar",
            "agent-memory-service",
            "agent-memory-service.sidecar",
            "offline-model",
            "placement",
            "redis.trim",
            "redis",
        ]
        said = capsys.readouterr().out
        assert said.index("Redis answers") < said.index("chat-service and its sidecar answer") < said.index("stopping")
        assert "stopped; the conversations are in" in said

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_it_stops_as_well_when_its_terminal_or_the_system_wants_that(self, all_of, ends, number):
        run.Run(all_of(), lambda: os.kill(os.getpid(), number)).go()
        assert ends[-1] == "redis"

    def test_one_that_ends_is_named_with_the_end_of_its_log_and_the_others_are_stopped(self, all_of, ends, capfd):
        fails = _program("placement", "time.sleep(0.3); print('no port for me', flush=True); sys.exit(3)")
        with pytest.raises(
            CommandError, match=r"placement has ended \(exit code 3\); all it said is in .*placement\.log"
        ):
            run.Run(all_of(placement=fails), lambda: None).go()
        assert "no port for me" in capfd.readouterr().err
        assert ends[0] == "chat-service"

    def test_one_that_is_killed_while_all_are_up_is_named(self, all_of, ends):
        def kill():
            (redis_process,) = [item.process for item in processes.leftovers() if item.name == "redis"]
            redis_process.kill()

        with pytest.raises(CommandError, match=r"redis has ended \(signal SIGKILL\)"):
            run.Run(all_of(), kill).go()

    @pytest.fixture
    def placement(self, folder):
        """A program that can be killed once it is up; started again it says so, and asks the run to stop."""
        log, been = folder / "log" / "placement.log", folder / "been"
        script = f"""import os
been = pathlib.Path({str(been)!r})
if been.exists():
    print("again", flush=True)
    os.kill(os.getppid(), signal.SIGINT)
been.touch()"""
        return _program("placement", script, ready=lambda: "up" in log.read_text())

    @staticmethod
    def kill_placement():
        (found,) = [item.process for item in processes.leftovers() if item.name == "placement"]
        found.kill()

    def test_one_of_daprs_control_plane_is_started_again_and_its_log_goes_on(
        self, all_of, placement, ends, monkeypatch, capsys
    ):
        monkeypatch.setattr(run, "STEADY_SECONDS", 0.0)
        run.Run(all_of(placement=placement), self.kill_placement).go()
        assert "placement has ended (signal SIGKILL): it is started again" in capsys.readouterr().out
        assert (layout.LOGS / "placement.log").read_text().splitlines()[:2] == ["up", "again"]
        assert "placement" in ends, "it is stopped with the others"

    def test_one_of_these_that_ends_as_soon_as_it_was_started_is_named(self, all_of, placement, ends, monkeypatch):
        monkeypatch.setattr(run, "STEADY_SECONDS", 300.0)
        with pytest.raises(CommandError, match=r"placement has ended \(signal SIGKILL\)"):
            run.Run(all_of(placement=placement), self.kill_placement).go()

    def test_one_that_does_not_come_up_is_named(self, all_of, ends, monkeypatch, capfd):
        monkeypatch.setattr(run, "START_SECONDS", 0.3)
        never = _program("chat-service", ready=lambda: False)
        with pytest.raises(CommandError, match="chat-service has not come up in 0 s; all it said is in"):
            run.Run(all_of(chat_service=never), lambda: None).go()
        assert "chat-service.log" in capfd.readouterr().err

    def test_asked_before_all_are_up_it_stops_what_it_has_started(self, all_of, ends):
        def asked():
            os.kill(os.getpid(), signal.SIGINT)
            return False

        with pytest.raises(KeyboardInterrupt):
            run.Run(all_of(redis=_program("redis", ready=asked)), lambda: pytest.fail("up")).go()
        assert ends == ["redis"]

    def test_asked_a_second_time_it_does_not_wait(self, all_of, ends, monkeypatch):
        monkeypatch.setattr(run, "TWICE_SECONDS", 0.0)
        up = threading.Event()

        def listens():
            # It ignores SIGTERM once it has said so in its log.
            if "up" in Path(layout.LOGS / "chat-service.log").read_text():
                up.set()
            return up.is_set()

        deaf = _program("chat-service", "signal.signal(signal.SIGTERM, signal.SIG_IGN)", ready=listens)
        monkeypatch.setattr(Service, "drained", lambda _: False)

        def ask_twice():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

        began = time.monotonic()
        run.Run(all_of(chat_service=deaf), ask_twice).go()
        assert time.monotonic() - began < run.DRAIN_SECONDS

    def test_a_log_begins_anew_with_each_run(self, folder):
        (folder / "log").mkdir()
        (folder / "log" / "placement.log").write_text("an earlier run")
        process = processes.Process(_program("placement"))
        try:
            assert "earlier" not in process.log.read_text()
        finally:
            process.kill()


def test_the_tutorials_lines_are_among_what_it_shows(machine, capsys):
    command._announce(planned(), "offline")
    shown = capsys.readouterr().out
    assert (
        "curl -X POST http://localhost:8001/memories/junaid/initialize -H 'Content-Type: application/json' -d '"
        in shown
    )
    assert '{"user_id": "junaid", "text": "Hi there"}' in shown
    assert '{"user_id": "junaid", "text": "What did I say before?"}' in shown
    assert "Ctrl-C stops it" in shown


def test_another_model_is_named(machine, capsys):
    command._announce(planned("gemini"), "gemini")
    assert "gemini answers" in capsys.readouterr().out


def test_git_ignores_what_a_run_and_the_dapr_cli_write():
    for folder in (".local/redis", ".dapr/logs"):
        subprocess.run(["git", "-C", ROOT, "check-ignore", "--quiet", folder], check=True)
