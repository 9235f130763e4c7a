"""The command line of cluster/: which cluster it takes, what it says, what it asks for. No cluster is needed."""

import http.server
import io
import json
import os
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from kubernetes.client import ApiException
from rich.console import Console

from cluster import __main__ as command_line
from cluster import (
    bare,
    binaries,
    content,
    deploy,
    down,
    evidence,
    images,
    placement,
    rest,
    shell,
    steps,
    target,
    versions,
)
from cluster.bare import node, packages
from cluster.chat import Conversation
from cluster.client import Client, Refused
from cluster.dapr import ControlPlane
from cluster.errors import CommandError
from cluster.kube import MADE_BY_UP, Kube
from cluster.target import Target


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine without an engine, whose user is not root, with no cluster recorded. Tests change what they need."""
    monkeypatch.setattr(target, "answering_engine", lambda: None)
    monkeypatch.setattr(target, "_is_root_on_linux", lambda: False)
    monkeypatch.setattr(target, "RECORD", tmp_path / ".kube" / "cluster")
    monkeypatch.setattr(target, "MADE", tmp_path / ".kube" / "made")
    monkeypatch.setattr(down, "RECORD", tmp_path / ".kube" / "cluster")
    for variable in ("CLUSTER", "NAMESPACE", "IMAGE_REGISTRY", "MODEL", "VALUES", "NODES", "DRY_RUN", "GEMINI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


class TestChoosing:
    def test_root_on_linux_without_an_engine_gets_the_bare_node(self, machine):
        machine.setattr(target, "_is_root_on_linux", lambda: True)
        chosen, why = target.chosen("", "")
        assert (chosen.cluster, chosen.namespace) == ("bare", "daca")
        assert "root" in why

    def test_an_answering_engine_means_kind(self, machine):
        machine.setattr(target, "answering_engine", lambda: "docker")
        machine.setattr(target, "_is_root_on_linux", lambda: True)
        chosen, why = target.chosen("", "")
        assert (chosen.cluster, chosen.context, chosen.namespace) == ("kind", "kind-daca", "daca")
        assert why == "docker answers"

    def test_neither_engine_nor_root_stops_with_the_choices(self, machine):
        with pytest.raises(CommandError, match=r"start an engine.*CLUSTER=current.*as root on Linux"):
            target.chosen("", "")

    def test_an_unknown_cluster_is_refused(self, machine):
        with pytest.raises(CommandError, match="CLUSTER=eks is none of kind, minikube, bare, current"):
            target.chosen("eks", "")

    def test_current_without_a_kubeconfig_says_so(self, machine, tmp_path):
        machine.setenv("KUBECONFIG", str(tmp_path / "missing"))
        with pytest.raises(CommandError, match="CLUSTER=current needs a kubeconfig with a current context"):
            target.chosen("current", "")

    def test_current_keeps_the_context_it_began_with(self, machine, tmp_path):
        kubeconfig = tmp_path / "config"
        kubeconfig.write_text(json.dumps(_kubeconfig("mine")))
        machine.setenv("KUBECONFIG", str(kubeconfig))
        chosen, _ = target.chosen("current", "team-a")
        assert chosen == Target("current", str(kubeconfig), "mine", "team-a")

    def test_an_engine_that_is_installed_but_does_not_answer_does_not_count(self, monkeypatch, tmp_path):
        for engine, exit_code in (("docker", 1), ("podman", 0)):
            (tmp_path / engine).write_text(f"#!/bin/sh\nexit {exit_code}\n")
            (tmp_path / engine).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
        assert target.answering_engine() == "podman"


class TestRecord:
    def test_later_commands_take_what_up_recorded(self, machine):
        made = Target("current", "/home/me/.kube/config", "mine", "team-a")
        made.record()
        assert target.recorded("", "") == made
        assert target.recorded("", "team-b").namespace == "team-b"

    def test_without_a_record_they_say_what_to_type(self, machine):
        with pytest.raises(CommandError, match="no cluster is up: `make up` starts one"):
            target.recorded("", "")

    def test_a_record_that_is_something_else_is_named(self, machine):
        target.RECORD.parent.mkdir()
        target.RECORD.write_text("[]")
        with pytest.raises(CommandError, match="is not what `make up` wrote"):
            target.recorded("", "")

    def test_helm_and_kubectl_get_the_recorded_context(self, machine):
        machine.setattr(binaries.shutil, "which", lambda name: f"/usr/bin/{name}")
        made = Target("current", "/config", "mine")
        assert made.helm_command("list") == [Path("/usr/bin/helm"), "list", "--kube-context", "mine"]
        assert made.kubectl_command("get") == [Path("/usr/bin/kubectl"), "--context", "mine", "get"]
        assert made.env()["KUBECONFIG"] == "/config"


class TestCommandLine:
    def test_a_failure_is_one_line_and_its_exit_code(self, machine, capsys):
        assert command_line.main(["status"]) == 1
        assert capsys.readouterr().err == "error: no cluster is up: `make up` starts one\n"

    def test_what_a_tool_said_comes_before_the_line(self, machine, capsys):
        def fail(*_):
            raise CommandError("it broke", said="line 1\nline 2")

        machine.setattr(command_line, "status", fail)
        assert command_line.main(["status"]) == 1
        assert capsys.readouterr().err == "line 1\nline 2\nerror: it broke\n"

    def test_a_wrong_call_exits_with_2(self, machine, capsys):
        assert command_line.main(["up", "--model", "gpt"]) == 2
        assert capsys.readouterr().err.startswith("error: MODEL=gpt is none of offline, gemini")

    def test_settings_come_from_the_environment_too(self, machine, capsys):
        machine.setenv("CLUSTER", "nonsense")
        assert command_line.main(["up"]) == 2
        assert "CLUSTER=nonsense is none of kind, minikube, bare, current" in capsys.readouterr().err

    def test_gemini_without_a_key_says_so_before_anything_is_built(self, machine, capsys):
        assert command_line.main(["up", "--cluster", "bare", "--model", "gemini"]) == 2
        assert "GEMINI_API_KEY=<your key> make up MODEL=gemini" in capsys.readouterr().err

    @pytest.mark.parametrize("nodes", ["0", "4", "two"])
    def test_a_number_of_nodes_that_cannot_be_is_refused(self, machine, capsys, nodes):
        assert command_line.main(["up", "--cluster", "bare", "--nodes", nodes]) == 2
        assert f"NODES={nodes} is none of 1, 2, 3" in capsys.readouterr().err

    def test_a_number_of_nodes_is_a_matter_of_the_bare_node(self, machine, capsys):
        assert command_line.main(["up", "--cluster", "kind", "--nodes", "2"]) == 2
        assert "`role: worker` lines in cluster/kind.yaml" in capsys.readouterr().err

    def test_a_values_file_that_is_missing_is_named(self, machine, capsys):
        assert command_line.main(["up", "--values", "/nowhere.yaml"]) == 2
        assert "VALUES=/nowhere.yaml is no file" in capsys.readouterr().err

    def test_current_needs_a_registry(self, machine, tmp_path, capsys):
        kubeconfig = tmp_path / "config"
        kubeconfig.write_text(json.dumps(_kubeconfig("mine")))
        machine.setenv("KUBECONFIG", str(kubeconfig))
        assert command_line.main(["up", "--cluster", "current"]) == 2
        assert "CLUSTER=current needs IMAGE_REGISTRY=" in capsys.readouterr().err

    def test_a_machine_that_cannot_run_the_bare_node_is_told_why_before_it_starts(self, machine, capsys):
        machine.setattr(packages, "preflight", lambda: ["not root: run make as root"])
        machine.setattr(packages, "install", lambda: pytest.fail("started"))
        assert command_line.main(["up", "--cluster", "bare"]) == 1
        assert "the bare node cannot run here: not root: run make as root" in capsys.readouterr().err

    def test_an_interrupt_is_no_traceback(self, machine, capsys):
        def interrupt(*_):
            raise KeyboardInterrupt

        machine.setattr(command_line, "status", interrupt)
        assert command_line.main(["status"]) == 130
        assert "interrupted" in capsys.readouterr().err

    def test_inspect_takes_the_user_that_make_was_given(self, machine):
        asked = []
        machine.setattr(command_line, "inspect", lambda *arguments: asked.append(arguments))
        machine.setenv("USER", "alice")
        command_line.main(["inspect"])
        command_line.main(["inspect", "bob"])
        assert asked == [("", "", "alice"), ("", "", "bob")]

    def test_a_user_that_is_no_id_is_refused(self, machine, capsys):
        assert command_line.main(["inspect", "a/b"]) == 2
        assert "USER='a/b' is no user id" in capsys.readouterr().err


class TestMake:
    @pytest.mark.parametrize(("given", "user"), [(["USER=alice"], "alice"), ([], "root")])
    def test_a_user_on_the_command_line_wins_over_the_login_name(self, given, user):
        # The recipe's interpreter is replaced by a command that shows what it would find.
        done = subprocess.run(
            ["make", "--no-print-directory", "inspect", *given, "RUN=printenv USER #"],
            cwd=versions.ROOT,
            env={**os.environ, "USER": "root"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == user

    def test_help_lists_every_documented_target(self):
        listed = subprocess.run(["make", "help"], cwd=versions.ROOT, capture_output=True, text=True, check=True).stdout
        names = [line.split()[1] for line in listed.splitlines()]
        assert {"setup", "up", "down", "status", "chat", "inspect", "check", "e2e", "test"} <= set(names)


class TestShell:
    def test_the_end_of_what_a_tool_said_is_kept(self):
        with pytest.raises(CommandError) as raised:
            shell.run(["sh", "-c", "echo one >&2; echo two >&2; exit 3"])
        assert str(raised.value) == "sh -c failed: two"
        assert raised.value.said == "one"

    def test_a_silent_failure_names_its_exit_code(self):
        with pytest.raises(CommandError, match="exit code 3"):
            shell.run(["sh", "-c", "exit 3"])

    def test_a_missing_tool_is_named(self):
        with pytest.raises(CommandError, match="no-such-tool is not installed"):
            shell.run(["no-such-tool"])

    def test_a_tool_that_hangs_is_given_up(self):
        with pytest.raises(CommandError, match="sleep 5 was not done"):
            shell.run(["sleep", "5"], timeout_seconds=0.1)


class TestSteps:
    def test_a_step_is_closed_by_what_it_reached_and_the_time(self, capsys):
        with steps.step("etcd is up"):
            pass
        assert capsys.readouterr().out.endswith(" s] etcd is up\n")

    def test_a_step_that_fails_says_so(self, capsys):
        with pytest.raises(ValueError, match="no"), steps.step("etcd is up"):
            raise ValueError("no")
        assert capsys.readouterr().out.endswith(" s] not reached: etcd is up\n")

    def test_a_slow_step_says_that_it_is_still_at_work(self, monkeypatch, capsys):
        monkeypatch.setattr(steps, "STILL_WORKING_SECONDS", 0.01)
        told = threading.Event()
        monkeypatch.setattr(steps, "say", lambda text: told.set() if text == "still working: etcd is up" else None)
        with steps.step("etcd is up"):
            assert told.wait(5)


class TestImages:
    @pytest.fixture
    def root(self, tmp_path):
        for name in ("common/src/a.py", "chat-service/src/b.py", "chat-service/tests/test_b.py"):
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x = 1\n")
        return tmp_path

    def test_a_tag_changes_with_the_sources_and_the_base(self, root):
        tag = content.content_tag(root, "chat-service", "python:3.11")
        assert tag == content.content_tag(root, "chat-service", "python:3.11")
        assert tag != content.content_tag(root, "chat-service", "python:3.12")
        (root / "images/common/src/a.py").write_text("x = 2\n")
        assert tag != content.content_tag(root, "chat-service", "python:3.11")

    def test_a_test_does_not_change_the_tag(self, root):
        tag = content.content_tag(root, "chat-service", "")
        (root / "images/chat-service/tests/test_b.py").write_text("x = 2\n")
        assert tag == content.content_tag(root, "chat-service", "")

    def test_without_a_builder_the_three_are_named(self, monkeypatch):
        monkeypatch.setattr(images, "answering_engine", lambda: None)
        monkeypatch.setattr(images.shutil, "which", lambda _: None)
        with pytest.raises(CommandError, match="neither Docker nor Podman answers and buildah is not installed"):
            images.builder()


class FakeKube(Kube):
    """A cluster of what a test puts into it."""

    def __init__(self, pods=(), namespaces=(), state=None):
        self.target = Target("current", "/config", "mine")
        self._pods = list(pods)
        self._namespaces = {item.metadata.name: item for item in namespaces}
        self._state = state or {}
        self.removed = []
        self.core = SimpleNamespace(
            patch_namespace=self._patch,
            delete_namespace=self._delete,
            delete_collection_namespaced_persistent_volume_claim=lambda *_, **__: self.removed.append("volumes"),
            delete_collection_namespaced_secret=lambda *_, **__: self.removed.append("secrets"),
            list_pod_for_all_namespaces=lambda label_selector: SimpleNamespace(items=self._pods),
        )
        definition = SimpleNamespace(metadata=SimpleNamespace(name="components.dapr.io"), spec=_group("dapr.io"))
        other = SimpleNamespace(metadata=SimpleNamespace(name="crontabs.example.com"), spec=_group("example.com"))
        self.extensions = SimpleNamespace(
            list_custom_resource_definition=lambda: SimpleNamespace(items=[definition, other]),
            delete_custom_resource_definition=self.removed.append,
        )
        self.apps = SimpleNamespace(
            list_deployment_for_all_namespaces=lambda label_selector: SimpleNamespace(items=[_injector()])
        )

    def pods(self, namespace, selector=""):
        return [pod for pod in self._pods if pod.metadata.namespace == namespace]

    def namespace(self, name):
        return self._namespaces.get(name)

    def proxied(self, namespace, pod, port, path):
        told = self._state[pod]
        if isinstance(told, Exception):
            raise told
        return told

    def _delete(self, name):
        self.removed.append(f"namespace {name}")
        del self._namespaces[name]

    def _patch(self, name, change):
        changed = self._namespaces[name].metadata.annotations | change["metadata"]["annotations"]
        self._namespaces[name].metadata.annotations = {key: text for key, text in changed.items() if text is not None}


class TestPlacement:
    @pytest.fixture
    def sidecars(self, monkeypatch):
        active = {"chat-1": {"actorRuntime": {"activeActors": [{"type": "UserSessionActor", "count": 7}]}}}

        class FakeSidecar:
            def __init__(self, _, pod):
                self._name = pod.metadata.name

            def __enter__(self):
                return self

            def __exit__(self, *_):
                return None

            def metadata(self):
                if self._name not in active:
                    raise CommandError("no way to it")
                return active[self._name]

        monkeypatch.setattr(placement, "Sidecar", FakeSidecar)

    def test_hosts_are_joined_with_pods_and_their_active_actors(self, sidecars):
        hosts = [
            {"name": "10.0.0.1:50002", "id": "chat-service", "entities": ["UserSessionActor"]},
            {"name": "10.0.0.2:50002", "id": "chat-service", "entities": ["UserSessionActor"]},
            {"name": "10.0.0.9:50002", "id": "chat-service", "entities": ["UserSessionActor"]},
            {"name": "10.0.0.3:50002", "id": "agent-memory-service"},
        ]
        kube = FakeKube(
            pods=[
                _pod("chat-1", ip="10.0.0.1"),
                _pod("chat-2", ip="10.0.0.2"),
                _pod("placement-0", namespace="dapr-system"),
                _pod("placement-1", namespace="dapr-system"),
            ],
            state={"placement-0": None, "placement-1": {"tables": {"daca": {"hosts": hosts}}}},
        )
        assert [(row.pod, row.address, row.active) for row in placement.rows(kube)] == [
            ("", "10.0.0.9:50002", None),
            ("chat-1", "10.0.0.1:50002", 7),
            ("chat-2", "10.0.0.2:50002", None),
        ]

    def test_a_table_that_is_switched_off_names_the_value(self):
        kube = FakeKube(
            pods=[_pod("placement-0", namespace="dapr-system")], state={"placement-0": ApiException(status=404)}
        )
        with pytest.raises(CommandError, match=r"dapr_placement\.metadataEnabled is off"):
            placement.hosts(kube)

    def test_no_leader_is_said(self):
        kube = FakeKube(pods=[_pod("placement-0", namespace="dapr-system")], state={"placement-0": None})
        with pytest.raises(CommandError, match="no replica is the leader"):
            placement.hosts(kube)


class TestEvidence:
    def test_the_pod_at_fault_is_shown_with_events_and_the_end_of_its_log(self, monkeypatch):
        monkeypatch.setattr(evidence, "_events", lambda *_: ["Warning chat-1 BackOff: restarting"])
        monkeypatch.setattr(evidence, "_log", lambda *_, previous: "\n".join(f"line {n}" for n in range(100)))
        waiting = SimpleNamespace(waiting=SimpleNamespace(reason="CrashLoopBackOff"), terminated=None, running=None)
        broken = _pod("chat-1", ready=False, containers=[_container("daprd"), _container("chat", waiting)])
        kube = FakeKube(pods=[broken, _pod("chat-2")])
        assert evidence.at_fault(kube, "daca") == [broken]
        shown = list(evidence.explained(kube, broken))
        assert shown[0] == "--- pod chat-1: Running"
        assert shown[1] == "Warning chat-1 BackOff: restarting"
        assert shown[2] == "--- log of its container chat (waiting: CrashLoopBackOff; ended with 137: OOMKilled)"
        assert shown[3:] == [f"line {n}" for n in range(80, 100)]


class TestDeploy:
    @pytest.fixture
    def helm(self, monkeypatch):
        calls = []
        told = SimpleNamespace(calls=calls, status="", version="v4.3.1")

        def run(_, *arguments, **__):
            if arguments[0] == "version":
                return told.version
            if arguments[0] != "status":
                calls.append([str(part) for part in arguments])
            elif not told.status:
                raise CommandError("helm status failed: Error: release: not found")
            return json.dumps({"info": {"status": told.status}})

        monkeypatch.setattr(Target, "helm", run)
        return told

    def test_images_become_values(self, helm):
        kube = FakeKube(namespaces=[_namespace("daca", "namespace")])
        deploy.daca(kube, {"chat-service": "host:5000/chat-service:dev-1"}, [], {"model.provider": "offline"})
        (upgrade,) = [call for call in helm.calls if call[0] == "upgrade"]
        assert "chatService.image.repository=host:5000/chat-service" in upgrade
        assert "chatService.image.tag=dev-1" in upgrade
        assert "model.provider=offline" in upgrade
        assert kube.made_by_up("daca") == {"namespace", "release"}

    @pytest.mark.parametrize("given", ["", "mine.dapr.svc:50006"])
    def test_the_relays_look_for_placement_where_dapr_is_unless_they_are_told(self, helm, monkeypatch, given):
        monkeypatch.setattr(deploy, "control_plane", lambda _: ControlPlane("elsewhere", "1.18.3"))
        kube = FakeKube(namespaces=[_namespace("daca", "namespace")])
        deploy.daca(kube, {}, [], {"placementRelay.placement": given} if given else {})
        (upgrade,) = [call for call in helm.calls if call[0] == "upgrade"]
        told = [word for word in upgrade if word.startswith("placementRelay.placement=")]
        assert told == [f"placementRelay.placement={given or 'dapr-placement-server.elsewhere.svc:50005'}"]

    @pytest.mark.parametrize(("version", "says_so"), [("v4.3.1", True), ("v3.21.4", False)])
    def test_what_was_changed_by_hand_is_taken_back_which_helm_4_has_to_be_told(self, helm, version, says_so):
        helm.version = version
        deploy.daca(FakeKube(namespaces=[_namespace("daca", "namespace")]), {}, [], {})
        (upgrade,) = [call for call in helm.calls if call[0] == "upgrade"]
        assert ("--force-conflicts" in upgrade) is says_so

    def test_a_release_of_somebody_else_is_left_alone(self, helm):
        helm.status = "deployed"
        with pytest.raises(CommandError, match="take another one with NAMESPACE="):
            deploy.daca(FakeKube(namespaces=[_namespace("daca", "")]), {}, [], {})
        assert helm.calls == []

    @pytest.mark.parametrize(
        ("status", "mended_by"), [("pending-install", "uninstall"), ("pending-upgrade", "rollback")]
    )
    def test_what_an_interrupted_up_left_is_mended(self, helm, status, mended_by):
        helm.status = status
        deploy.daca(FakeKube(namespaces=[_namespace("daca", "release")]), {}, [], {})
        assert [call[0] for call in helm.calls] == [mended_by, "upgrade"]

    def test_a_dapr_of_somebody_else_is_used_as_it_is(self, helm, capsys):
        kube = FakeKube(namespaces=[_namespace("daca", "namespace")])
        deploy.dapr(kube)
        assert helm.calls == []
        assert kube.made_by_up("daca") == {"namespace"}
        assert "Dapr 1.17.4 is there already, in dapr-system; it stays as it is" in capsys.readouterr().out


class TestDown:
    def test_without_anything_up_it_says_so(self, machine, capsys):
        machine.setattr(bare, "leftovers", list)
        assert command_line.main(["down"]) == 0
        assert "nothing is up" in capsys.readouterr().out

    def test_what_is_left_of_a_bare_node_is_taken_down_without_a_record(self, machine, tmp_path):
        machine.setattr(down, "BARE_KUBECONFIG", tmp_path / "config")
        machine.setattr(bare, "leftovers", lambda: ["interface daca-bare"])
        called = []
        machine.setattr(bare, "down", lambda: called.append("down"))
        assert command_line.main(["down"]) == 0
        assert called == ["down"]

    def test_what_is_still_there_afterwards_is_an_error(self, machine, tmp_path, capsys):
        machine.setattr(down, "BARE_KUBECONFIG", tmp_path / "config")
        machine.setattr(bare, "leftovers", lambda: ["interface daca-bare"])
        machine.setattr(node, "leftovers", lambda: ["interface daca-bare"])
        machine.setattr(node, "_clear", lambda: None)  # a node of this machine stays out of it
        machine.setattr(node, "_mounts", list)
        machine.setattr(node, "STATE", tmp_path / "node" / "state")
        machine.setattr(node, "MOUNT_POINTS", ())
        assert command_line.main(["down"]) == 1
        assert "left behind: interface daca-bare" in capsys.readouterr().err

    def test_a_namespace_in_which_up_made_nothing_is_left_alone(self, machine, capsys):
        kube = FakeKube(namespaces=[_namespace("daca", "")])
        machine.setattr(down, "Kube", lambda _: kube)
        Target("current", "/config", "mine").record()
        assert command_line.main(["down"]) == 0
        assert "`make up` made nothing in namespace daca of mine" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("made", "pods", "removed"),
        [
            ("release", [], ["uninstall daca", "volumes", "secrets"]),
            ("release namespace", [], ["uninstall daca", "volumes", "secrets", "namespace daca"]),
            ("dapr", [], ["uninstall dapr", "volumes"]),
            ("dapr dapr-definitions", [], ["uninstall dapr", "volumes", "components.dapr.io"]),
            ("dapr dapr-namespace", [], ["uninstall dapr", "volumes", "namespace dapr-system"]),
            ("dapr dapr-definitions dapr-namespace", ["somebody-else"], []),
        ],
    )
    def test_only_what_up_made_and_nobody_else_uses_is_removed(self, machine, made, pods, removed):
        kube = FakeKube(
            pods=[_pod("app", namespace=name) for name in pods],
            namespaces=[_namespace("daca", made), _namespace("dapr-system", "")],
        )
        machine.setattr(down, "Kube", lambda _: kube)
        machine.setattr(Target, "helm", lambda _, *arguments: kube.removed.append(" ".join(arguments[:2])))
        Target("current", "/config", "mine").record()
        assert command_line.main(["down"]) == 0
        assert kube.removed == removed
        assert not kube.made_by_up("daca")
        assert not target.RECORD.exists()

    @pytest.mark.parametrize(("cluster", "where"), [("kind", "on its nodes"), ("current", "in the registry")])
    def test_it_says_where_images_stay(self, machine, capsys, cluster, where):
        kube = FakeKube(namespaces=[_namespace("daca", "release")])
        machine.setattr(down, "Kube", lambda _: kube)
        kube.target = Target(cluster, "/config", "mine")
        machine.setattr(Target, "helm", lambda *_: "")
        kube.target.record()
        assert command_line.main(["down"]) == 0
        assert capsys.readouterr().out.rstrip().endswith(where)


@pytest.fixture
def service():
    """An HTTP server that answers with what the test queues: (status, body); ``None`` breaks the connection off."""
    answers, asked = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, self.headers["Idempotency-Key"], json.loads(body)))
            answer = answers.pop(0)
            if answer is None:
                self.connection.close()
                return
            status, told = answer
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield SimpleNamespace(answers=answers, asked=asked, url=lambda _: f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


class TestClient:
    def test_a_turn_is_sent_again_under_its_key_when_the_connection_breaks(self, service, monkeypatch):
        monkeypatch.setattr("cluster.client.time.sleep", lambda _: None)
        service.answers += [None, (200, {"reply": "Hello"})]
        assert Client(service).send("alice", "Hi", "session-1") == {"reply": "Hello"}
        (path, key, body), again = service.asked
        assert again == (path, key, body)
        assert (path, body) == ("/chat/", {"user_id": "alice", "text": "Hi", "metadata": {"session_id": "session-1"}})
        assert key

    def test_what_a_service_says_is_the_message(self, service):
        service.answers.append((503, {"title": "Service Unavailable", "detail": "The model has no key."}))
        with pytest.raises(Refused, match="chat-service answered 503: The model has no key"):
            Client(service).send("alice", "Hi")

    def test_a_service_that_is_not_there_is_named(self, monkeypatch):
        monkeypatch.setattr("cluster.client.time.sleep", lambda _: None)
        with pytest.raises(CommandError, match="chat-service does not answer"):
            Client(SimpleNamespace(url=lambda _: "http://127.0.0.1:9")).send("alice", "Hi")  # type: ignore[arg-type]

    def test_a_proxy_of_the_environment_is_not_used(self, service, monkeypatch):
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        service.answers.append((200, {}))
        assert rest.call("POST", service.url("x"), {}).status == 200


class TestChat:
    @pytest.fixture
    def talk(self):
        """Runs a chat over given lines; what was shown, and what the services were asked."""
        asked: list[tuple] = []

        class FakeClient:
            def memory(self, user_id):
                return {"name": "Alice", "preferred_style": "casual"}

            def send(self, user_id, text, session_id):
                asked.append(("send", user_id, text))
                if text == "break":
                    raise Refused("chat-service answered 502: The model failed.")
                return {"reply": f"[you] said {text}"}

            def clear(self, user_id):
                asked.append(("clear", user_id))

            def transcript(self, session_id):
                return [{"role": "user", "content": "[bold]Hi", "timestamp": "now"}]

        def run(*lines):
            console = Console(record=True, width=200, file=io.StringIO())
            left = list(lines)

            def read(prompt):
                if not left:
                    raise EOFError
                return left.pop(0)

            Conversation(FakeClient(), console, "alice").hold(read)  # type: ignore[arg-type]
            return console.export_text(), asked

        return run

    def test_it_shows_name_session_and_answers(self, talk):
        shown, asked = talk("Hi", "")
        assert "You are Alice (user alice), in session chat-" in shown
        assert "chat> [you] said Hi" in shown
        assert asked == [("send", "alice", "Hi")]

    def test_an_error_is_one_line_and_the_chat_goes_on(self, talk):
        shown, asked = talk("break", "Hi")
        assert "chat-service answered 502: The model failed." in shown
        assert asked[-1] == ("send", "alice", "Hi")

    def test_its_commands_are_not_sent(self, talk):
        shown, asked = talk("/history", "/clear", "/nonsense", "/quit", "never read")
        assert "now user> [bold]Hi" in shown
        assert "/nonsense is no command" in shown
        assert asked == [("clear", "alice")]


def _pod(name, namespace="daca", ip="", ready=True, containers=()):
    return SimpleNamespace(
        metadata=SimpleNamespace(name=name, namespace=namespace, annotations={}, deletion_timestamp=None),
        status=SimpleNamespace(
            pod_ip=ip,
            phase="Running",
            conditions=[SimpleNamespace(type="Ready", status="True" if ready else "False")],
            container_statuses=list(containers),
            init_container_statuses=None,
        ),
    )


def _container(name, state=None):
    running = SimpleNamespace(waiting=None, terminated=None, running=True)
    ended = SimpleNamespace(terminated=SimpleNamespace(exit_code=137, reason="OOMKilled") if state else None)
    return SimpleNamespace(name=name, ready=state is None, restart_count=0, state=state or running, last_state=ended)


def _namespace(name, made):
    return SimpleNamespace(metadata=SimpleNamespace(name=name, annotations={MADE_BY_UP: made}))


def _group(name):
    return SimpleNamespace(group=name)


def _injector():
    container = SimpleNamespace(image="ghcr.io/dapr/injector:1.17.4")
    template = SimpleNamespace(spec=SimpleNamespace(containers=[container]))
    return SimpleNamespace(metadata=SimpleNamespace(namespace="dapr-system"), spec=SimpleNamespace(template=template))


def _kubeconfig(context):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
        "current-context": context,
    }
