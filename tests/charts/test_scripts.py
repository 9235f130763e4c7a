"""The scripts that the charts and k8s-secrets/ carry, run with stand-ins for what they call."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import ClassVar

import pytest

from tests.charts.conftest import CHART, ROOT

CREATE = ROOT / "k8s-secrets" / "create-model-key.sh"
START = CHART / "charts" / "redis" / "files" / "start.sh"
CONVERSATION = CHART / "files" / "conversation.py"
KEY = "AIza-not-a-real_key"


@pytest.fixture
def stub(tmp_path):
    """Puts programs into PATH that note their arguments and standard input, each call in a file of its own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    calls = tmp_path / "calls"
    calls.mkdir()

    def make(name, body=""):
        path = folder / name
        path.write_text(
            "#!/bin/bash\n"
            f'call=$(mktemp {calls}/{name}.XXXX)\nprintf "%s\\n" "$@" > "$call.arguments"\n'
            f'if [[ ! -t 0 && "$1" != get ]]; then cat > "$call.input"; fi\n{body}\n'
        )
        path.chmod(0o755)

    def run(command, given="", **environment):
        return subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tmp_path), **environment},
        )

    make.run = run
    make.arguments = lambda: {path.name: path.read_text().splitlines() for path in calls.glob("*.arguments")}
    make.inputs = lambda: [path.read_text() for path in calls.glob("*.input")]
    return make


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

    def test_a_line_end_does_not_become_part_of_the_key(self, stub):
        stub("kubectl")
        assert stub.run([CREATE], f"{KEY}\n").returncode == 0
        assert KEY in stub.inputs()

    @pytest.mark.parametrize(
        ("arguments", "given", "told"),
        [
            ([], "", "the API key is empty"),
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
    @pytest.mark.parametrize(
        ("password", "line"),
        [("secret", 'requirepass "secret"'), ('a"b\\c $d `e`', r'requirepass "a\"b\\c $d `e`"')],
    )
    def test_the_password_reaches_redis_on_standard_input(self, stub, password, line):
        stub("redis-server")
        done = stub.run(["/bin/sh", START], REDISCLI_AUTH=password)
        assert done.returncode == 0, done.stderr
        assert list(stub.arguments().values()) == [["/etc/redis/redis.conf", "-"]]
        assert stub.inputs() == [f"{line}\n"]

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
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}"
            environment = {**os.environ, "CHAT_URL": url, "MEMORY_URL": url, "MODEL_PROVIDER": provider}
            command = [sys.executable, CONVERSATION]
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
