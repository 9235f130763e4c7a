"""`make load`: what it takes, what it refuses, what it makes of a run's end. On a cluster: e2e/test_load_cluster.py."""

import base64
import io
import json
import os
import shlex
import subprocess
import tarfile
from itertools import pairwise
from types import SimpleNamespace

import pytest
from actor_load.scenario import SCENARIOS

from cluster import __main__ as command_line
from cluster import content, load, target
from cluster.errors import CommandError
from cluster.kube import Kube
from cluster.load import Settings
from cluster.target import Target
from cluster.versions import ROOT

REFERENCES = {name: f"registry/{name}:dev-1" for name in ("load-tests", "placement-relay")}
NAMES = ("SCENARIO", "SHAPE", "USERS", "RUN_TIME", "WORKERS", "CLASSES", "LOAD_OPTIONS")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine on which Docker answers, with no cluster recorded."""
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text("#!/bin/sh\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(target, "RECORD", tmp_path / ".kube" / "cluster")
    for variable in (*NAMES, "CLUSTER", "NAMESPACE", "IMAGE_REGISTRY", "DRY_RUN", "PYTHON_IMAGE"):
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


class TestSettings:
    def test_without_any_the_tour_is_run_and_the_chart_decides_the_rest(self):
        assert Settings().values() == {"run": {"scenario": "tour"}}
        assert Settings().name == "tour"

    def test_each_becomes_a_value_of_the_chart(self):
        settings = Settings(
            shape="ramp",
            users="50",
            run_time="1h2m3s",
            workers="3",
            classes="Conversation  HotActors",
            options="--max-p95 500 --min-rate=10.5 --think-time 1-2 --enable-rebalancing --tags a 'b c'",
        )
        assert settings.name == "ramp"
        assert settings.values() == {
            "workers": 3,
            "thresholds": {"maxP95": 500, "minRate": 10.5},
            "run": {
                "scenario": "none",
                "shape": "ramp",
                "users": 50,
                "timeSeconds": 3723,
                "userClasses": ["Conversation", "HotActors"],
                "options": {"think-time": "1-2", "enable-rebalancing": True, "tags": ["a", "b c"]},
            },
        }

    def test_thresholds_may_be_several(self):
        settings = Settings(options="--threshold 'turn:p95<300' --threshold='call@change:failed<1%' --max-p95 9")
        assert settings.values()["thresholds"] == {
            "maxP95": 9,
            "expressions": ["turn:p95<300", "call@change:failed<1%"],
        }
        assert Settings(options="--threshold turn:p95").values()["thresholds"] == {"expressions": ["turn:p95"]}

    @pytest.mark.parametrize(("text", "seconds"), [("300", 300), ("90s", 90), ("5m", 300), ("1h", 3600)])
    def test_a_time_is_written_as_locust_takes_it(self, text, seconds):
        assert Settings(run_time=text).values()["run"]["timeSeconds"] == seconds

    def test_no_scenario_and_no_shape_is_a_constant_load(self):
        assert Settings(scenario="none").name == "constant"
        assert Settings(scenario="none").values() == {"run": {"scenario": "none"}}

    @pytest.mark.parametrize(
        ("setting", "said"),
        [
            ({"scenario": "chaos"}, "SCENARIO=chaos is none of none, tour, scale"),
            ({"shape": "wave"}, "SHAPE=wave is none of constant, ramp"),
            ({"scenario": "scale", "shape": "ramp"}, "SCENARIO=scale decides the load by itself: leave SHAPE= out"),
            ({"users": "many"}, "USERS=many is no number of 1 or more"),
            ({"workers": "0"}, "WORKERS=0 is no number of 1 or more"),
            ({"run_time": "long"}, "RUN_TIME=long is no time: 300, 90s, 5m or 1h30m is one"),
            ({"run_time": "0m"}, "RUN_TIME=0m is no time"),
            ({"options": "--max-p95 fast"}, "LOAD_OPTIONS: --max-p95 fast is no number"),
            ({"options": "-u 5"}, "-u is none"),
            ({"options": "--tags 'a"}, "No closing quotation"),
        ],
    )
    def test_a_wrong_one_is_named(self, setting, said):
        with pytest.raises(CommandError, match=said) as raised:
            Settings(**setting).values()
        assert raised.value.exit_code == 2

    def test_the_command_line_hands_them_on(self, machine):
        asked = []
        machine.setattr(command_line, "load", asked.append)
        machine.setenv("USERS", "7")
        assert command_line.main(["load", "--shape", "spike", "--options=--max-p95 5", "--namespace", "other"]) == 0
        assert asked == [Settings(namespace="other", shape="spike", users="7", options="--max-p95 5")]

    def test_make_hands_them_on(self):
        given = {name: f"my {name}" for name in NAMES}
        # The recipe's interpreter is replaced by a command that shows what it would find.
        done = subprocess.run(
            ["make", "--no-print-directory", "load", *(f"{k}={v}" for k, v in given.items()), "RUN=env #"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert {f"{name}={value}" for name, value in given.items()} <= set(done.stdout.splitlines())


def planned(capsys, *options):
    """The plan, as argument lists."""
    assert command_line.main(["load", "--dry-run", *options]) == 0, capsys.readouterr().err
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


class TestPlan:
    @pytest.mark.parametrize(
        ("cluster", "loaded", "context"),
        [
            ("kind", "kind load docker-image {} --name daca", "kind-daca"),
            ("minikube", "minikube --profile daca image load {}", "daca"),
        ],
    )
    def test_it_builds_loads_installs_follows_fetches_and_removes(self, machine, capsys, cluster, loaded, context):
        names = ("load-tests", "placement-relay")
        references = [f"localhost/daca/{name}:{content.content_tag(ROOT, name, '')}" for name in names]
        *images, install, follow, fetch, remove = planned(capsys, "--cluster", cluster, "--users", "5")
        builds, puts = images[:2], images[2:]
        sources = [["load-tests/Dockerfile", "load-tests"], ["images/placement-relay/Dockerfile", "images"]]
        assert [build[:2] for build in builds] == [["docker", "build"]] * 2
        assert [build[build.index("--file") + 1 :] for build in builds] == sources
        assert [build[build.index("--tag") + 1] for build in builds] == references
        assert puts == [shlex.split(loaded.format(reference)) for reference in references]
        assert install[:5] == ["helm", "upgrade", "--install", "load-tests", "charts/load-tests"]
        image, relay = (
            dict(zip(("repository", "tag"), reference.rsplit(":", 1), strict=True)) for reference in references
        )
        values = dict(word.split("=", 1) for before, word in pairwise(install) if "json" in before)
        assert {name: json.loads(value) for name, value in values.items()} == {
            "image": image,
            "placementRelay": {"image": relay},
            "run": {"scenario": "tour", "users": 5},
            "rbac": {"nodeMetrics": True, "scenarios": True},
        }
        job = ["logs", "-n", "daca", "job/load-tests-master-1", "--container"]
        assert follow == ["kubectl", "--context", context, *job, "locust", "--follow"]
        assert fetch[: fetch.index("|")] == ["kubectl", "--context", context, *job, "results"]
        assert remove == ["helm", "uninstall", "load-tests", "--namespace", "daca", "--kube-context", context]
        assert install[-1] == context

    def test_it_is_for_clusters_in_an_engine(self, machine, capsys):
        assert command_line.main(["load", "--cluster", "bare", "--dry-run"]) == 2
        assert "DRY_RUN= is for kind and minikube, not for bare" in capsys.readouterr().err


class TestImage:
    def test_its_tag_changes_with_its_sources_alone(self, tmp_path):
        for name in (
            "load-tests/locustfile.py",
            "load-tests/actor_load/a.py",
            "load-tests/tests/test_a.py",
            "images/b",
        ):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x = 1\n")

        def tag():
            return content.content_tag(tmp_path, content.LOAD_TESTS, "base")

        tags = [tag()]
        for name in ("load-tests/tests/test_a.py", "images/b", "load-tests/actor_load/a.py"):
            (tmp_path / name).write_text("x = 2\n")
            tags.append(tag())
        assert tags[0] == tags[1] == tags[2] != tags[3]

    def test_it_is_none_of_the_images_that_up_builds(self):
        assert content.LOAD_TESTS not in content.IMAGES

    def test_what_is_left_out_of_the_tag_is_left_out_of_the_image(self):
        ignored = (ROOT / "load-tests" / ".dockerignore").read_text().splitlines()
        assert {line.removeprefix("**/") for line in ignored if not line.startswith("#")} < set(content.IGNORED)

    def test_the_bare_node_builds_it_for_its_registry(self, machine):
        machine.setattr(load.bare, "build_images", lambda root, names: {name: f"registry/{name}" for name in names})
        built = load._images(Target.bare("daca"), "")
        assert built == {name: f"registry/{name}" for name in ("load-tests", "placement-relay")}

    def test_on_another_cluster_it_needs_a_registry(self):
        with pytest.raises(CommandError, match="CLUSTER=current needs IMAGE_REGISTRY=") as raised:
            load._images(Target("current", "/config", "mine"), "")
        assert raised.value.exit_code == 2

    def test_without_an_engine_kind_says_so(self, machine):
        machine.setattr(load, "answering_engine", lambda: None)
        with pytest.raises(CommandError, match="CLUSTER=kind needs an engine"):
            load._images(Target("kind", "/config", "kind-daca"), "")


def pod(name, component, phase="Succeeded", exit_code=0, reason="Completed"):
    """A pod of the chart, as far as `make load` looks at it."""
    ended = SimpleNamespace(exit_code=exit_code, reason=reason) if phase in {"Succeeded", "Failed"} else None
    state = SimpleNamespace(terminated=ended, running=None if ended else True, waiting=None)
    return SimpleNamespace(
        metadata=SimpleNamespace(name=name, namespace="daca", component=component),
        status=SimpleNamespace(
            phase=phase, container_statuses=[SimpleNamespace(name="locust", state=state)], init_container_statuses=None
        ),
    )


def job(*conditions, message=""):
    """A Job with conditions that are true."""
    told = [SimpleNamespace(type=name, status="True", message=message) for name in conditions]
    return SimpleNamespace(
        metadata=SimpleNamespace(name="load-tests-master-1"), status=SimpleNamespace(conditions=told)
    )


def packed(**files):
    """What the container `results` logs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            archive.addfile(item, io.BytesIO(data))
    return base64.encodebytes(buffer.getvalue())


class FakeKube(Kube):
    """A cluster with a chat, in which Helm makes the pods that a test names; ``calls`` is what was done."""

    def __init__(self, monkeypatch, tmp_path):
        self.target = Target("bare", "/config", "")
        self.client = None
        self.calls = []
        self.made, self._pods = [], []
        self.jobs = []
        self.chat, self.namespaces = [pod("chat-1", "chat")], {"daca"}
        self.results = packed(report=b"x")
        self.core = SimpleNamespace(read_namespaced_pod_log=self._log)
        batch = SimpleNamespace(
            list_namespaced_job=lambda *_, **__: SimpleNamespace(items=self.jobs),
            delete_collection_namespaced_job=self._delete,
        )
        monkeypatch.setattr(load, "Kube", lambda _: self)
        monkeypatch.setattr(load.kubernetes.client, "BatchV1Api", lambda _: batch)
        monkeypatch.setattr(load, "recorded", lambda *_: self.target)
        monkeypatch.setattr(load, "_images", lambda *_: REFERENCES)
        monkeypatch.setattr(load, "RESULTS", tmp_path / "load-results")
        monkeypatch.setattr(Target, "helm", lambda _, *arguments: self._helm(*arguments))
        for name in ("START_SECONDS", "WORKERS_SECONDS", "GONE_SECONDS", "STATE_SECONDS"):
            monkeypatch.setattr(load, name, 0)

    def namespace(self, name):
        return name if name in self.namespaces else None

    def ready_pods(self, namespace, selector=""):
        return self.chat

    def pods(self, namespace, selector=""):
        return [
            item
            for item in self._pods
            if f"component={item.metadata.component}" in selector or "component" not in selector
        ]

    def _log(self, name, namespace, container, follow=False, **_):
        if follow:
            return SimpleNamespace(stream=lambda: iter([b"a line of th\xc3", b"\xa9 master\n"]))
        return SimpleNamespace(data=self.results)

    def _helm(self, *arguments):
        self.calls.append(f"helm {arguments[0]}")
        if arguments[0] == "upgrade":
            self._pods = list(self.made)
        return ""

    def _delete(self, *_, **__):
        self.calls.append("jobs end")
        self._pods = []


class TestRun:
    @pytest.fixture
    def release(self, machine, tmp_path):
        kube = FakeKube(machine, tmp_path)
        kube.made = [pod("master", "master"), pod("worker-0", "worker")]
        return kube

    REMOVED = ("jobs end", "helm uninstall")

    def test_a_run_that_passed_leaves_its_files_and_nothing_in_the_cluster(self, release, tmp_path, capsys):
        release.results = packed(**{"report.html": b"<html>"})
        load.load(Settings(scenario="scale"))
        assert release.calls == [*self.REMOVED, "helm upgrade", *self.REMOVED]
        (folder,) = (tmp_path / "load-results").iterdir()
        assert folder.name.endswith("Z-scale")
        assert (folder / "report.html").read_text() == "<html>"
        assert f"report: {folder / 'report.html'}" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("ended", "code", "said"),
        [
            ((1, "Error"), 1, "the run failed with exit code 1; above is why"),
            ((2, "Error"), 2, "the run did not begin; above is why"),
            ((137, "OOMKilled"), 1, r"the run failed with exit code 137: the master was killed \(OOMKilled\)"),
        ],
    )
    def test_how_the_master_ended_decides(self, release, tmp_path, ended, code, said):
        release.made[0] = pod("master", "master", "Failed", *ended)
        with pytest.raises(CommandError, match=said) as raised:
            load.load(Settings())
        assert raised.value.exit_code == code
        assert len(list((tmp_path / "load-results").iterdir())) == 1
        assert release.calls[-2:] == [*self.REMOVED]

    def test_a_worker_that_was_killed_fails_the_run(self, release):
        release.made[1] = pod("worker-0", "worker", "Failed", 137, "OOMKilled")
        with pytest.raises(CommandError, match=r"worker worker-0 failed \(exit code 137, OOMKilled\)"):
            load.load(Settings())

    def test_a_worker_that_does_not_end_fails_the_run(self, release):
        release.made[1] = pod("worker-0", "worker", "Running")
        with pytest.raises(CommandError, match=r"worker worker-0 failed \(it has not ended\)"):
            load.load(Settings())

    def test_the_masters_log_is_shown_as_it_was_written(self, release, capsys):
        states, ended, pods = iter([pod("master", "master", "Running")] * 3), release.made[0], release.pods
        release.pods = lambda namespace, selector="": (
            [next(states, ended)] if "component=master" in selector else pods(namespace, selector)
        )
        load.load(Settings())
        assert "a line of thé master\n" in capsys.readouterr().out

    def test_an_interrupt_ends_the_run_first(self, release, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(load.Run, "follow", interrupt)
        with pytest.raises(CommandError, match="interrupted; the run is ended and removed") as raised:
            load.load(Settings())
        assert raised.value.exit_code == 130
        assert release.calls[-2:] == [*self.REMOVED]

    def test_a_second_run_is_refused(self, release, monkeypatch):
        monkeypatch.setattr(Target, "typed", lambda _, tool: tool)
        release.jobs = [job()]
        refused = (
            r"a run is under way in namespace daca \(load-tests-master-1\): wait, or end it: kubectl delete job -n daca"
        )
        with pytest.raises(CommandError, match=refused):
            load.load(Settings())
        assert release.calls == []

    def test_one_that_has_ended_is_in_nobodys_way(self, release):
        release.jobs = [job("Complete"), job("Failed")]
        load.load(Settings())
        assert "helm upgrade" in release.calls

    def test_a_wrong_namespace_is_one_line(self, release):
        release.namespaces = set()
        with pytest.raises(CommandError, match="there is no namespace daca: NAMESPACE= names that of the release"):
            load.load(Settings())
        assert release.calls == []

    def test_a_release_without_chat_pods_is_one_line(self, release):
        release.chat = []
        with pytest.raises(CommandError, match="no pod of chat-service is ready in namespace daca"):
            load.load(Settings())
        assert release.calls == []

    def test_results_that_are_broken_off_are_told(self, release, capsys):
        release.results = packed(report=os.urandom(10_000))[:5000]
        load.load(Settings())
        assert "the results did not arrive whole" in capsys.readouterr().out

    def test_where_there_are_none_there_is_no_folder(self, release, tmp_path):
        release.results = packed()
        load.load(Settings())
        assert not (tmp_path / "load-results").exists()

    def test_a_master_that_does_not_start_is_told_with_the_reason(self, release):
        release.made = []
        release.jobs = [job("Failed", message="exceeded quota")]
        with pytest.raises(CommandError, match="the master has not started: exceeded quota"):
            load.load(Settings())
        assert release.calls[-2:] == [*self.REMOVED]

    def test_a_pod_that_does_not_go_is_named(self, release, monkeypatch):
        stays = [pod("worker-0", "worker", "Running")]
        monkeypatch.setattr(release, "pods", lambda *_: stays)
        with pytest.raises(CommandError, match="pods of the load tests do not end: worker-0"):
            load.Run(release).remove()

    def test_on_the_users_own_cluster_the_strong_right_is_not_asked_for(self):
        for name, asked in (("current", False), ("bare", True), ("kind", True)):
            words = load._install(Target(name, "/config", "mine"), REFERENCES, {"run": {}})
            assert any("nodeMetrics" in str(word) for word in words) is asked

    @pytest.mark.parametrize("scenario", ["none", *SCENARIOS])
    def test_the_rights_that_a_scenario_takes_are_asked_for(self, scenario):
        words = load._install(Target("current", "/config", "mine"), REFERENCES, {"run": {"scenario": scenario}})
        asked = [json.loads(str(word).partition("=")[2]) for word in words if str(word).startswith("rbac=")]
        takes = SCENARIOS[scenario].rights if scenario in SCENARIOS else ()
        assert asked == ([dict.fromkeys(takes, True)] if takes else [])

    def test_the_right_to_nodes_is_asked_for_where_the_cluster_is_of_make_up(self):
        for name, scenario, asked in (("bare", "faults", True), ("bare", "tour", False), ("current", "faults", False)):
            words = load._install(Target(name, "/config", "mine"), REFERENCES, {"run": {"scenario": scenario}})
            assert ('nodeFaults={"enabled": true}' in words) is asked
