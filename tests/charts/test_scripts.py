"""The scripts that the charts and k8s-secrets/ carry, run with stand-ins for what they call."""

import http.client
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import ClassVar
from urllib.parse import parse_qs

import pytest
from support.charts import CHART, ROOT

CREATE = ROOT / "k8s-secrets" / "create-model-key.sh"
START = CHART / "files" / "redis" / "start.sh"
CONVERSATION = CHART / "files" / "conversation.py"
SIDECARS = CHART / "files" / "sidecars.py"
KEY = "AIza-not-a-real_key"


class Stub:
    """Programs in PATH that note their arguments and standard input, each call in a file of its own."""

    def __init__(self, folder):
        self._home = folder
        self._bin = folder / "bin"
        self._bin.mkdir()
        self._calls = folder / "calls"
        self._calls.mkdir()

    def __call__(self, name, body=""):
        path = self._bin / name
        path.write_text(
            "#!/bin/bash\n"
            f'call=$(mktemp {self._calls}/{name}.XXXX)\nprintf "%s\\n" "$@" > "$call.arguments"\n'
            f'if [[ ! -t 0 && "$1" != get ]]; then cat > "$call.input"; fi\n{body}\n'
        )
        path.chmod(0o755)

    def run(self, command, given="", **environment):
        return subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": f"{self._bin}:/usr/bin:/bin", "HOME": str(self._home), **environment},
        )

    def arguments(self):
        return {path.name: path.read_text().splitlines() for path in self._calls.glob("*.arguments")}

    def inputs(self):
        return [path.read_text() for path in self._calls.glob("*.input")]


@pytest.fixture
def stub(tmp_path):
    return Stub(tmp_path)


class TestCreateModelKey:
    def test_the_key_goes_in_on_standard_input(self, stub):
        stub("kubectl", 'if [[ "$1" == create ]]; then echo "the Secret"; fi')
        done = stub.run([CREATE, "-n", "chats"], KEY)
        assert done.returncode == 0, done.stderr
        assert sorted(stub.inputs()) == sorted([KEY, "the Secret\n"])
        calls = list(stub.arguments().values())
        assert not any(KEY in argument for call in calls for argument in call)
        create = next(call for call in calls if call[0] == "create")
        assert create[:4] == ["create", "secret", "generic", "gemini-api-key"]
        assert ("--namespace", "chats") in pairwise(create)
        assert "--from-file=gemini-api-key=/dev/stdin" in create
        assert KEY not in done.stdout + done.stderr

    def test_the_key_may_be_in_the_environment(self, stub):
        stub("kubectl")
        done = stub.run([CREATE, "--name", "mine", "--key", "k"], MODEL_API_KEY=KEY, NAMESPACE="other")
        assert done.returncode == 0, done.stderr
        assert KEY in stub.inputs()
        create = next(call for call in stub.arguments().values() if call[0] == "create")
        assert "mine" in create
        assert "other" in create
        assert "--from-file=k=/dev/stdin" in create

    @pytest.mark.parametrize("given", [f"{KEY}\n", f"{KEY}\r\n", f" \t{KEY} ", f"\ufeff{KEY}\n\n", f"\ufeff {KEY}"])
    def test_what_a_file_brings_along_does_not_become_part_of_the_key(self, stub, given):
        stub("kubectl")
        assert stub.run([CREATE], given).returncode == 0
        assert KEY in stub.inputs()

    @pytest.mark.parametrize(
        ("arguments", "given", "told"),
        [
            ([], "", "the API key is empty"),
            ([], "AIza\u2013key", "not ASCII"),
            ([], "two words", "contains white space"),
            ([KEY], "", "an API key is never one"),
            (["-n"], KEY, "-n needs a value"),
        ],
    )
    def test_bad_input_is_told_in_one_line(self, stub, arguments, given, told):
        stub("kubectl")
        done = stub.run([CREATE, *arguments], given)
        assert done.returncode == 1
        assert told in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert KEY not in done.stderr

    def test_a_missing_namespace_is_told_with_the_mend(self, stub):
        stub("kubectl", "exit 1")
        done = stub.run([CREATE, "-n", "nowhere"], KEY)
        assert done.returncode == 1
        assert "kubectl create namespace nowhere" in done.stderr

    def test_a_machine_without_kubectl_is_told(self, stub):
        done = stub.run(["/bin/bash", str(CREATE)], KEY, PATH="/nonexistent")
        assert done.returncode == 1
        assert "kubectl is not in PATH" in done.stderr


class TestRedisStart:
    def test_the_password_reaches_redis_on_standard_input(self, stub):
        stub("redis-server")
        done = stub.run(["/bin/sh", START], REDISCLI_AUTH='a"b c')
        assert done.returncode == 0, done.stderr
        assert list(stub.arguments().values()) == [["/etc/redis/redis.conf", "-"]]
        assert stub.inputs() == ['requirepass "\\x61\\x22\\x62\\x20\\x63"\n']

    @pytest.mark.parametrize("password", ['"secret"', "'secret'", "`secret`"])
    def test_a_password_in_quotes_is_refused_because_dapr_would_take_another(self, stub, password):
        stub("redis-server")
        done = stub.run(["/bin/sh", START], REDISCLI_AUTH=password)
        assert done.returncode == 1
        assert "stands in quotes" in done.stderr
        assert "secret`" not in done.stderr
        assert stub.arguments() == {}

    def test_it_does_not_start_without_a_password(self, stub):
        stub("redis-server")
        assert "the secret holds no password" in stub.run(["/bin/sh", START]).stderr
        assert stub.arguments() == {}


class Chat(BaseHTTPRequestHandler):
    """Both services in one, as small as the conversation needs them."""

    forgetful = False
    users: ClassVar[dict] = {}
    transcripts: ClassVar[dict] = {}

    def log_message(self, *_):
        pass

    def answer(self, body, status=200):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        part, name = self.path.split("/")[1:3]
        self.answer(self.users[name] if part == "memories" else {"history": self.transcripts.get(name, [])})

    def do_DELETE(self):
        self.users[self.path.split("/")[2]]["said"] = []
        self.answer({})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/chat/":
            self.users[self.path.split("/")[2]] = {**body, "said": []}
            self.answer({"status": "success"})
            return
        said = self.users[body["user_id"]]["said"]
        reply = "nothing" if self.forgetful or not said else f"You said: {said}"
        said.append(body["text"])
        session = body.get("metadata", {}).get("session_id", f"session-{body['user_id']}")
        self.transcripts.setdefault(session, []).extend(
            [{"role": "user", "content": body["text"]}, {"role": "assistant", "content": reply}]
        )
        self.answer({"reply": reply, "metadata": {"session_id": session}})


class TestConversation:
    @pytest.fixture
    def hold(self):
        servers = []

        def run(provider, handler=Chat):
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            servers.append(server)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}"
            environment = {**os.environ, "CHAT_URL": url, "MEMORY_URL": url, "MODEL_PROVIDER": provider}
            command = [sys.executable, str(CONVERSATION)]
            return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

        yield run
        for server in servers:
            server.shutdown()
            server.server_close()

    def test_it_passes_where_all_is_well(self, hold):
        done = hold("offline")
        assert done.returncode == 0, done.stderr
        assert "What did I say before?" in done.stdout
        assert done.stdout.endswith("All is well.\n")

    def test_it_fails_where_the_history_does_not_reach_the_model(self, hold):
        done = hold("offline", type("Forgetful", (Chat,), {"forgetful": True}))
        assert done.returncode == 1
        assert "FAILED: the second reply does not know the first message" in done.stderr

    def test_another_provider_may_answer_what_it_likes(self, hold):
        assert hold("gemini", type("Forgetful", (Chat,), {"forgetful": True})).returncode == 0

    def test_an_error_is_told_in_one_line(self, hold):
        class Broken(Chat):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer({"title": "no key"}, 503)

        done = hold("gemini", Broken)
        assert done.returncode == 1
        assert done.stderr.startswith("FAILED: POST ")
        assert "answered 503" in done.stderr
        assert len(done.stderr.splitlines()) == 1


class TestSidecars:
    @pytest.fixture
    def sidecars(self):
        specification = importlib.util.spec_from_file_location("sidecars", SIDECARS)
        assert specification is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        return module

    def pod(self, name, *containers, native=(), phase="Running", asks="true", **metadata):
        return {
            "metadata": {
                "name": f"{name}-1",
                "labels": {"app.kubernetes.io/name": name},
                "annotations": {"dapr.io/enabled": asks},
                **metadata,
            },
            "spec": {
                "containers": [{"name": name}, *({"name": other} for other in containers)],
                "initContainers": [{"name": other} for other in native],
            },
            "status": {"phase": phase},
        }

    def test_pods_without_one_are_named_with_the_mend(self, sidecars):
        pods = [self.pod("chat-service", "daprd"), self.pod("chat-service"), self.pod("agent-memory-service")]
        with pytest.raises(sidecars.Wrong) as wrong:
            sidecars.check(pods, "chats")
        lines = str(wrong.value).splitlines()
        assert lines[1:3] == ["  agent-memory-service-1", "  chat-service-1"]
        assert lines[-1] == "  kubectl rollout restart deployment -n chats agent-memory-service chat-service"

    def test_pods_that_have_one_or_need_none_are_well(self, sidecars):
        pods = [
            self.pod("chat-service", "daprd"),
            self.pod("chat-service", native=["daprd"]),
            self.pod("chat-service", deletionTimestamp="2026-11-23T17:00:00Z"),
            self.pod("chat-service", phase="Failed"),
            self.pod("conversation-test", asks="false"),
            {"metadata": {"name": "redis-0"}, "spec": {"containers": [{"name": "redis"}]}},
        ]
        assert sidecars.check(pods, "daca") == 2

    @pytest.fixture
    def api_server(self, sidecars, tmp_path, monkeypatch):
        """A server in the place of Kubernetes' that answers as it is told and keeps what it was asked."""

        def without_tls(host, port, *, timeout, context):
            return http.client.HTTPConnection(host, port, timeout=timeout)

        (tmp_path / "token").write_text("a token")
        monkeypatch.setattr(sidecars, "ACCOUNT", tmp_path)
        monkeypatch.setattr(sidecars.ssl, "create_default_context", lambda **_: None)
        monkeypatch.setattr(sidecars.http.client, "HTTPSConnection", without_tls)

        class Api(BaseHTTPRequestHandler):
            status, body = 200, {"items": []}
            asked: ClassVar[list] = []

            def log_message(self, *_):
                pass

            def do_GET(self):
                self.asked.append((self.path, self.headers["Authorization"]))
                self.send_response(self.status)
                self.end_headers()
                self.wfile.write(json.dumps(self.body).encode())

        server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("RELEASE", "1e3")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
        yield Api
        server.shutdown()
        server.server_close()

    def test_the_api_server_is_asked_for_the_releases_pods(self, sidecars, api_server):
        api_server.body = {"items": [self.pod("chat-service")]}
        assert sidecars.pods_of("chats") == api_server.body["items"]
        ((path, authorization),) = api_server.asked
        address, _, query = path.partition("?")
        assert (address, authorization) == ("/api/v1/namespaces/chats/pods", "Bearer a token")
        selector = "app.kubernetes.io/instance=1e3,app.kubernetes.io/name in (chat-service,agent-memory-service)"
        assert parse_qs(query) == {"labelSelector": [selector]}

    def test_what_the_api_server_refuses_is_told(self, sidecars, api_server):
        api_server.status, api_server.body = 403, {"message": "pods is forbidden"}
        with pytest.raises(sidecars.Wrong, match=r"answers 403.*pods is forbidden"):
            sidecars.pods_of("chats")

    def test_an_api_server_that_is_away_is_told(self, sidecars, api_server, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
        with pytest.raises(sidecars.Wrong, match=r"cannot be asked.*refused"):
            sidecars.pods_of("chats")
