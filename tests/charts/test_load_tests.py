"""What charts/load-tests makes of its values: Jobs that end by themselves, whatever happens to them."""

import ast
import base64
import io
import json
import os
import re
import runpy
import signal
import subprocess
import tarfile
import threading
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from actor_load.scenario import SCENARIOS, Right
from support.charts import LOAD_TESTS, ROOT, Rendered, notes_of

from cluster import content
from cluster.versions import VERSIONS

MASTER, WORKERS = "load-tests-master-1", "load-tests-workers-1"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
EVERYTHING = Path(__file__).with_name("load-tests-everything-optional.yaml")
SHIPPED = {
    "defaults": [],
    "a scenario": ["--set", "run.scenario=tour,thresholds.maxP95=500,rbac.nodeMetrics=true"],
    "no sidecars": ["--set", "sidecar.master=false,sidecar.workers=false"],
    "faults": ["--set", "run.scenario=faults,rbac.faults=true"],
    "faults on nodes": ["--set", "run.scenario=faults,rbac.faults=true,nodeFaults.enabled=true"],
    "no rights": ["--set", "rbac.placement=false,rbac.scenarios=false"],
    "everything optional": ["--values", str(EVERYTHING)],
}


@pytest.fixture(scope="session")
def render(helm):
    """Renders charts/load-tests as it is installed beside charts/daca; once for each set of arguments."""

    @cache
    def run(*arguments, chart=LOAD_TESTS):
        done = helm("template", "load-tests", chart, "--namespace", "daca", *arguments)
        assert done.returncode == 0, done.stderr
        return Rendered(done.stdout)

    return run


@pytest.fixture(scope="session")
def default(render):
    """The chart with the values that it ships."""
    return render()


@pytest.fixture
def refusal(helm):
    """What Helm says when it refuses to render the chart with these arguments."""

    def run(*arguments):
        done = helm("template", "load-tests", LOAD_TESTS, "--namespace", "daca", *arguments)
        assert done.returncode != 0, "Helm took what it should refuse"
        return done.stderr

    return run


def containers(pod):
    """All of a pod's, by name."""
    return {item["name"]: item for item in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]}


def told(pod):
    """What Locust is told."""
    return containers(pod)["locust"]["args"]


def option(pod, name):
    """The word behind an option."""
    arguments = told(pod)
    return arguments[arguments.index(f"--{name}") + 1]


class TestEveryRender:
    @pytest.mark.parametrize("arguments", SHIPPED.values(), ids=SHIPPED.keys())
    def test_it_is_valid_for_kubernetes_and_dapr(self, render, validate, arguments):
        documents = render(*arguments).documents
        assert len(documents) >= 5
        for document in documents:
            validate(json.dumps(document))

    @pytest.mark.parametrize("arguments", SHIPPED.values(), ids=SHIPPED.keys())
    def test_it_passes_helm_lint(self, helm, arguments):
        done = helm("lint", "--strict", LOAD_TESTS, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.parametrize("arguments", SHIPPED.values(), ids=SHIPPED.keys())
    def test_every_container_is_hardened(self, render, arguments):
        for name, pod in render(*arguments).pods().items():
            assert pod["spec"]["securityContext"]["runAsNonRoot"] is True, name
            assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
            for container in containers(pod).values():
                context = container["securityContext"]
                assert context["readOnlyRootFilesystem"] is True
                assert context["allowPrivilegeEscalation"] is False
                assert context["capabilities"] == {"drop": ["ALL"]}
                assert context["runAsUser"] > 0
                assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
                assert "memory" in container["resources"]["limits"]

    @pytest.mark.parametrize("arguments", SHIPPED.values(), ids=SHIPPED.keys())
    def test_the_masters_locust_alone_has_a_way_to_the_api(self, render, arguments):
        rendered = render(*arguments)
        for name, pod in rendered.pods().items():
            assert pod["spec"]["automountServiceAccountToken"] is False
            mounts = {
                container["name"]: [mount["mountPath"] for mount in container.get("volumeMounts", [])]
                for container in containers(pod).values()
            }
            holders = [container for container, paths in mounts.items() if TOKEN in paths]
            assert holders == (["locust"] if name == MASTER else [])
        for name in rendered.names("ServiceAccount"):
            assert rendered.get("ServiceAccount", name)["automountServiceAccountToken"] is False


class TestJobs:
    def test_every_pod_belongs_to_a_job_that_ends_whatever_happens(self, default):
        assert default.names("Job") == {MASTER, WORKERS} == set(default.pods())
        for name in (MASTER, WORKERS):
            spec = default.get("Job", name)["spec"]
            assert spec["backoffLimit"] == 0
            assert spec["activeDeadlineSeconds"] == 300 + 900
            assert spec["ttlSecondsAfterFinished"] == 86400
            assert spec["template"]["spec"]["restartPolicy"] == "Never"

    def test_what_keeps_running_is_a_sidecar_of_kubernetes(self, default):
        pod = default.pods()[MASTER]
        assert [item["name"] for item in pod["spec"]["containers"]] == ["locust"]
        assert [(item["name"], item["restartPolicy"]) for item in pod["spec"]["initContainers"]] == [
            ("placement-relay", "Always"),
            ("results", "Always"),
        ]
        for name in (MASTER, WORKERS):
            annotations = default.pods()[name]["metadata"]["annotations"]
            assert annotations["dapr.io/enabled"] == "true"
            assert annotations["dapr.io/enable-native-sidecar"] == "true"

    def test_dapr_takes_that_from_a_pods_annotations(self, default, dapr_source):
        source = (dapr_source / "pkg" / "injector" / "patcher" / "sidecar.go").read_text()
        known = set(re.findall(r'annotation:"(dapr\.io/[a-z0-9-]+)"', source))
        used = {name for pod in default.pods().values() for name in pod["metadata"]["annotations"]}
        assert {name for name in used if name.startswith("dapr.io/")} <= known

    def test_as_many_workers_run_as_the_master_waits_for(self, render):
        rendered = render("--set", "workers=5")
        spec = rendered.get("Job", WORKERS)["spec"]
        assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (5, 5, "Indexed")
        assert option(rendered.pods()[MASTER], "expect-workers") == "5"

    def test_workers_find_the_master_of_their_own_run(self, default):
        pods = default.pods()
        service = default.get("Service", option(pods[WORKERS], "master-host"))
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["publishNotReadyAddresses"] is True
        selector = service["spec"]["selector"].items()
        assert selector <= pods[MASTER]["metadata"]["labels"].items()
        assert not selector <= pods[WORKERS]["metadata"]["labels"].items()
        assert service["spec"]["selector"]["load-tests/run"] == "1"
        ports = {port["name"]: port["containerPort"] for port in containers(pods[MASTER])["locust"]["ports"]}
        assert ports == {"workers": service["spec"]["ports"][0]["port"]}

    def test_six_chat_pods_fit_beside_them_on_the_bare_node(self, default):
        # Of its 2000m the rest of a release and Dapr ask 490m, and each chat pod 200m.
        def asked(pod):
            injected = pod["metadata"]["annotations"]["dapr.io/sidecar-cpu-request"]
            requests = [item["resources"]["requests"]["cpu"] for item in containers(pod).values()]
            return sum(int(text.removesuffix("m")) for text in [*requests, injected])

        pods = default.pods()
        workers = default.get("Job", WORKERS)["spec"]["parallelism"]
        assert asked(pods[MASTER]) + workers * asked(pods[WORKERS]) <= 2000 - 490 - 6 * 200

    def test_a_long_release_name_is_shortened_to_what_a_pod_may_be_called(self, helm):
        name = "load-" + "x" * 45 + "-abc"
        done = helm("template", name[:53], LOAD_TESTS, "--namespace", "daca", "--set", "workers=1000")
        assert done.returncode == 0, done.stderr
        assert all(len(f"{job}-999") <= 63 for job in Rendered(done.stdout).names("Job"))

    @pytest.mark.parametrize("name", ["42", "1e3", "my.run", "2026.11.26"])
    def test_a_service_may_be_called_as_the_release_is(self, helm, name):
        done = helm("template", name, LOAD_TESTS, "--namespace", "daca", "--set", "webUI.enabled=true")
        assert done.returncode == 0, done.stderr
        services = Rendered(done.stdout).names("Service")
        assert len(services) == 2
        assert all(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", service) for service in services)

    def test_the_relay_stands_between_each_sidecar_and_placement(self, default, render):
        for pod in default.pods().values():
            (relay,) = [item for item in pod["spec"]["initContainers"] if item["name"] == "placement-relay"]
            assert f"--listen={pod['metadata']['annotations']['dapr.io/placement-host-address']}" in relay["args"]
        told = render("--set", "daprNamespace=other,placementRelay.connectTimeoutMs=250").pods()[WORKERS]
        (relay,) = told["spec"]["initContainers"]
        placement = "--placement=dapr-placement-server.other.svc:50005"
        assert {placement, "--connect-timeout-ms=250"} < set(relay["args"])

    def test_without_a_sidecar_or_by_value_there_is_none(self, render):
        for setting in ("sidecar.workers=false", "placementRelay.enabled=false"):
            pod = render("--set", setting).pods()[WORKERS]
            assert "initContainers" not in pod["spec"]
            assert "dapr.io/placement-host-address" not in pod["metadata"]["annotations"]

    def test_the_image_is_that_of_the_apps_version(self, default):
        version = yaml.safe_load((LOAD_TESTS / "Chart.yaml").read_text())["appVersion"]
        images = {container["image"] for pod in default.pods().values() for container in containers(pod).values()}
        assert images == {f"localhost/daca/{name}:{version}" for name in (content.LOAD_TESTS, content.PLACEMENT_RELAY)}


@cache
def refused_by_locust(*arguments):
    """What Locust says of a command line that it can't take; empty where it can."""
    done = subprocess.run(
        [ROOT / ".venv" / "bin" / "locust", "--show-task-ratio-json", *arguments],
        cwd="/",
        env={**os.environ, "LOCUST_LOCUSTFILE": str(ROOT / "load-tests" / "locustfile.py")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr if done.returncode else ""


class TestOptions:
    @pytest.mark.parametrize("arguments", [[], SHIPPED["everything optional"]], ids=["defaults", "everything"])
    @pytest.mark.parametrize("name", [MASTER, WORKERS])
    def test_locust_knows_every_option(self, render, arguments, name):
        assert refused_by_locust(*told(render(*arguments).pods()[name])) == ""

    def test_locust_would_say_which_it_does_not_know(self, default):
        assert "--no-such-option" in refused_by_locust(*told(default.pods()[MASTER]), "--no-such-option")

    def test_shapes_are_those_of_the_locustfile(self):
        source = (ROOT / "load-tests" / "actor_load" / "options.py").read_text()
        run = yaml.safe_load((LOAD_TESTS / "values.schema.yaml").read_text())["properties"]["run"]["properties"]
        (listed,) = re.findall(r"^SHAPES: Final = (\(.*?\))$", source, re.MULTILINE)
        assert run["shape"]["enum"] == list(ast.literal_eval(listed))

    def test_scenarios_and_their_rights_are_those_of_the_locustfile(self):
        written = runpy.run_path(str(ROOT / "charts" / "generate_schema.py"))["scenarios"]()
        current = (LOAD_TESTS / "files" / "scenarios.json").read_text()
        assert current == written, "run: python charts/generate_schema.py"

    def test_values_become_options_of_both(self, render):
        rendered = render(
            "--set",
            "run.scenario=scale,run.options.actors=100000,run.options.write-share=0.05,run.options.think-time=1-2,"
            "run.options.enable-rebalancing=true,run.options.only-summary=false,run.options.report-file=",
            "--set",
            "run.userClasses={Conversation,HotActors},target.url=http://other:80,target.memoryUrl=http://memory:80",
        )
        for pod in (rendered.pods()[name] for name in (MASTER, WORKERS)):
            arguments = told(pod)
            assert option(pod, "host") == "http://other:80"
            assert option(pod, "memory-host") == "http://memory:80"
            assert option(pod, "namespace") == "daca"
            assert option(pod, "scenario") == "scale"
            assert option(pod, "actors") == "100000"
            assert option(pod, "write-share") == "0.05"
            assert option(pod, "think-time") == "1-2"
            assert "--enable-rebalancing" in arguments
            assert not {"--only-summary", "--report-file", "true", "false"} & set(arguments)
            classes = arguments.index("Conversation")
            assert arguments[classes + 1] == "HotActors"
            # Behind the one word of an option: one that takes several would take the classes, too.
            assert arguments[classes - 2] == "--scenario"

    def test_the_master_is_told_the_run_and_its_bounds(self, render):
        pod = render("--set", "run.users=7,run.spawnRate=0.5,run.timeSeconds=90,thresholds.maxErrorRate=0.01").pods()[
            MASTER
        ]
        assert told(pod)[:2] == ["--master", "--headless"]
        assert (option(pod, "users"), option(pod, "spawn-rate"), option(pod, "run-time")) == ("7", "0.5", "90s")
        assert option(pod, "expect-workers-max-wait") == "120"
        assert option(pod, "max-error-rate") == "0.01"
        assert "--max-p95" not in told(pod)
        mounts = {mount["name"]: mount["mountPath"] for mount in containers(pod)["locust"]["volumeMounts"]}
        assert option(pod, "report") == mounts["results"] == "/results"

    def test_each_threshold_is_an_option(self, render):
        arguments = told(render("--values", str(EVERYTHING)).pods()[MASTER])
        given = [value for name, value in pairwise(arguments) if name == "--threshold"]
        assert given == ["turn:p95<300", "call@change:failed<1%!abort"]

    def test_a_threshold_of_nothing_is_one(self, render):
        assert option(render("--set", "thresholds.maxErrorRate=0").pods()[MASTER], "max-error-rate") == "0"

    def test_with_the_web_ui_the_run_still_begins_and_ends_by_itself(self, render):
        rendered = render("--set", "webUI.enabled=true,webUI.quitSeconds=5")
        pod = rendered.pods()[MASTER]
        assert told(pod)[:2] == ["--master", "--autostart"]
        assert option(pod, "autoquit") == "5"
        assert "--headless" not in told(pod)
        service = rendered.get("Service", "load-tests-web")
        assert [port["port"] for port in service["spec"]["ports"]] == [8089]
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()


class TestSidecars:
    @pytest.mark.parametrize(("master", "workers"), [(True, False), (False, True), (False, False)])
    def test_they_are_where_the_values_say(self, render, master, workers):
        rendered = render("--set", f"sidecar.master={json.dumps(master)},sidecar.workers={json.dumps(workers)}")
        have = {name: "dapr.io/app-id" in pod["metadata"]["annotations"] for name, pod in rendered.pods().items()}
        assert have == {MASTER: master, WORKERS: workers}
        assert bool(rendered.names("Resiliency")) is (master or workers)

    def test_they_call_actors_under_an_app_id_of_their_own_and_host_none(self, default):
        for pod in default.pods().values():
            annotations = pod["metadata"]["annotations"]
            assert annotations["dapr.io/app-id"] == "load-tests"
            assert "dapr.io/app-port" not in annotations

    def test_their_configuration_is_that_of_the_release_under_load(self, default, helm):
        done = helm(
            "template", "daca", ROOT / "charts" / "daca",
            "--api-versions", "dapr.io/v1alpha1", "--api-versions", "dapr.io/v2alpha1",
        )  # fmt: skip
        daca = Rendered(done.stdout)
        configuration = default.pods()[MASTER]["metadata"]["annotations"]["dapr.io/config"]
        assert daca.get("Configuration", configuration)["spec"]["metrics"]["http"] == {"increasedCardinality": False}
        # And a call is tried again as one of chat-service is.
        theirs, ours = daca.get("Resiliency", "daca"), default.get("Resiliency", "load-tests")
        assert ours["scopes"] == ["load-tests"]
        assert ours["spec"]["policies"]["retries"]["actor"] == theirs["spec"]["policies"]["retries"]["actor"]
        assert ours["spec"]["targets"]["actors"] == theirs["spec"]["targets"]["actors"]


class TestRights:
    def rules(self, rendered, name="load-tests"):
        return {
            (resource, verb)
            for rule in rendered.get("Role", name)["rules"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    def test_the_master_sees_pods_and_changes_the_deployment_under_load_alone(self, default):
        assert self.rules(default) == {
            ("namespaces", "get"),
            ("pods", "list"),
            ("pods/proxy", "get"),
            ("deployments", "get"),
            ("deployments", "patch"),
            ("deployments/scale", "patch"),
        }
        apps = [rule for rule in default.get("Role", "load-tests")["rules"] if rule["apiGroups"] == ["apps"]]
        assert [rule["resourceNames"] for rule in apps] == [["chat-service"]] * 2
        assert default.names("ClusterRole") == set()

    def test_in_daprs_namespace_it_sees_placement(self, default):
        assert default.get("Role", "load-tests-daca")["metadata"]["namespace"] == "dapr-system"
        assert self.rules(default, "load-tests-daca") == {("pods", "list"), ("pods/proxy", "get")}

    @pytest.mark.parametrize("arguments", SHIPPED.values(), ids=SHIPPED.keys())
    def test_all_of_it_is_the_masters(self, render, arguments):
        rendered = render(*arguments)
        bindings = [document for document in rendered.documents if document["kind"].endswith("Binding")]
        for binding in bindings:
            assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "load-tests", "namespace": "daca"}]
            found = rendered.get(binding["roleRef"]["kind"], binding["roleRef"]["name"])
            assert found["metadata"].get("namespace") == binding["metadata"].get("namespace")
        accounts = {name: pod["spec"]["serviceAccountName"] for name, pod in rendered.pods().items()}
        assert accounts == {MASTER: "load-tests", WORKERS: "load-tests-workers"}
        assert rendered.names("ServiceAccount") == set(accounts.values())

    @pytest.mark.parametrize("right", Right)
    @pytest.mark.parametrize("name", SCENARIOS)
    def test_a_scenario_is_refused_without_a_right_that_it_takes(self, render, refusal, name, right):
        rights = ",".join(f"rbac.{one}={str(one is not right).lower()}" for one in Right)
        arguments = ("--set", f"run.scenario={name},{rights}")
        if right in SCENARIOS[name].rights:
            assert f"run.scenario is {name} while rbac.{right} is false" in refusal(*arguments)
        else:
            assert render(*arguments).pods()

    @pytest.mark.parametrize("right", Right)
    def test_each_right_of_a_scenario_is_one_more_of_the_masters(self, render, right):
        more, less = (self.rules(render("--set", f"rbac.{right}={value}")) for value in ("true", "false"))
        assert more > less

    def test_without_scenarios_it_changes_nothing(self, render):
        rules = self.rules(render("--set", "rbac.scenarios=false"))
        assert {verb for _, verb in rules} == {"get", "list"}

    def test_only_faults_take_the_right_to_delete_pods(self, default, render):
        with_faults = render("--set", "rbac.faults=true")
        for role in ("load-tests", "load-tests-daca"):
            assert self.rules(with_faults, role) - self.rules(default, role) == {("pods", "delete")}

    def test_faults_on_nodes_take_the_right_to_make_jobs(self, render):
        without, allowed = render("--set", "rbac.faults=true"), render(*SHIPPED["faults on nodes"])
        assert self.rules(allowed) - self.rules(without) == {("cronjobs", "get"), ("jobs", "create"), ("jobs", "get")}
        assert self.rules(allowed, "load-tests-daca") == self.rules(without, "load-tests-daca")

    def test_each_can_be_left_out(self, render):
        rendered = render("--set", "rbac.placement=false,rbac.scenarios=false")
        assert rendered.names("Role") == rendered.names("RoleBinding") == set()

    def test_cpu_and_memory_take_a_strong_right_that_has_to_be_asked_for(self, render):
        rendered = render("--set", "rbac.nodeMetrics=true")
        assert rendered.get("ClusterRole", "load-tests-daca")["rules"] == [
            {"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]}
        ]

    def test_another_deployment_under_load_is_the_one_that_may_be_changed(self, render):
        rendered = render("--set", "run.options.deployment=other")
        apps = [rule for rule in rendered.get("Role", "load-tests")["rules"] if rule["apiGroups"] == ["apps"]]
        assert [rule["resourceNames"] for rule in apps] == [["other"]] * 2


class TestFaultsOnNodes:
    def test_there_is_nothing_of_them_unless_they_are_asked_for(self, default, render):
        for rendered in (default, render(*SHIPPED["faults"])):
            assert rendered.names("CronJob") == set()
            assert "--node-faults" not in told(rendered.pods()[MASTER])

    def test_the_job_that_the_master_makes_ends_by_itself_and_has_no_more_rights_than_it_takes(self, render):
        rendered = render(*SHIPPED["faults on nodes"])
        name = option(rendered.pods()[MASTER], "node-faults")
        spec = rendered.get("CronJob", name)["spec"]
        assert spec["suspend"] is True
        job = spec["jobTemplate"]["spec"]
        assert job["activeDeadlineSeconds"] < 300
        assert job["backoffLimit"] == 0
        assert job["ttlSecondsAfterFinished"] > 0
        pod = job["template"]["spec"]
        assert (pod["hostPID"], pod["automountServiceAccountToken"]) == (True, False)
        assert "hostNetwork" not in pod
        (container,) = pod["containers"]
        context = container["securityContext"]
        assert "privileged" not in context
        assert context["capabilities"] == {"drop": ["ALL"], "add": ["KILL", "SYS_PTRACE", "SYS_ADMIN", "NET_ADMIN"]}

    def test_a_release_that_is_removed_takes_them_along(self, render):
        rendered = render(*SHIPPED["faults on nodes"])
        labels = rendered.get("CronJob", "load-tests-node-faults")["spec"]["jobTemplate"]["metadata"]["labels"]
        selected = {"app.kubernetes.io/instance": "load-tests", "app.kubernetes.io/part-of": "load-tests"}
        assert selected.items() <= labels.items(), "`make load` deletes what has these"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("run.user=3", ["/run", "user", "not allowed"]),
        ("workers=0", ["/workers", "minimum", "1"]),
        ("run.users=many", ["/run/users", "string", "integer"]),
        ("run.timeSeconds=0", ["/run/timeSeconds", "minimum"]),
        ("run.graceSeconds=5", ["/run/graceSeconds", "minimum", "60"]),
        ("run.shape=wave", ["/run/shape", "ramp", "steps"]),
        ("run.scenario=chaos", ["/run/scenario", "tour", "rolling"]),
        ("run.options.MAX=1", ["/run/options", "MAX", "not allowed"]),
        ("run.userClasses={a-b}", ["/run/userClasses/0"]),
        ("target.url=chat-service:8010", ["/target/url", "http"]),
        ("target.memoryUrl=http://memory/", ["/target/memoryUrl"]),
        ("thresholds.maxP95=fast", ["/thresholds/maxP95", "fast"]),
        ("thresholds.maxErrorRate=2", ["/thresholds/maxErrorRate", "maximum", "1"]),
        ("thresholds.maxErrorRate=1.5", ["/thresholds/maxErrorRate", "1.5"]),
        ("thresholds.expressions={turn:p95=300}", ["/thresholds/expressions/0", "turn:p95=300"]),
        ("run.spawnRate=fast", ["/run/spawnRate", "fast"]),
        ("sidecar.enabled=true", ["/sidecar", "enabled", "not allowed"]),
        ("target.namespace=daca", ["/target", "namespace", "not allowed"]),
    ],
)
def test_a_wrong_value_is_told_by_its_name(refusal, setting, said):
    message = refusal("--set", setting)
    assert all(part in message for part in said), message


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("run.scenario=tour,run.shape=ramp", "set run.shape=constant, or run.scenario=none"),
        ("run.scenario=tour,rbac.scenarios=false", "set rbac.scenarios=true"),
        ("run.scenario=faults", "set rbac.faults=true"),
        ("nodeFaults.enabled=true", "set rbac.faults=true, or nodeFaults.enabled=false"),
        ("run.options.node-faults=x", "set nodeFaults.enabled instead"),
        ("run.options.namespace=other", "run.options.namespace has a value of its own: set helm's own -n instead"),
        ("run.options.max-p95=5", "set thresholds.maxP95 instead"),
        ("run.options.threshold=turn:p95<3", "set thresholds.expressions instead"),
        ("run.options.memory-host=http://m:1", "set target.memoryUrl instead"),
        ("run.options.headless=true", "run.options.headless is the chart's to set"),
        ("webUI.service.nodePort=30089", "set the type to NodePort"),
    ],
)
def test_values_that_do_not_go_together_are_refused(refusal, setting, said):
    assert said in refusal("--set", setting)


class TestResults:
    """files/results.sh, run as in the pod; only its folder is another."""

    @pytest.fixture
    def log(self, tmp_path):
        """What it has logged, once it was ended while these files (name -> content) were there."""

        def run(files):
            folder, logged = tmp_path / "results", tmp_path / "log"
            for name, data in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
            folder.mkdir(exist_ok=True)
            script = (LOAD_TESTS / "files" / "results.sh").read_text()
            assert "cd /results ||" in script
            with logged.open("wb") as output:
                # In a session of its own, because what it has started ends with it in a container only.
                process = subprocess.Popen(
                    ["sh", "-c", script.replace("/results", str(folder))],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                try:
                    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
                    while not children.read_text():  # it sleeps, so it listens
                        time.sleep(0.01)
                    assert logged.stat().st_size == 0
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(10) == 0
                finally:
                    os.killpg(process.pid, signal.SIGKILL)
            return logged.read_bytes()

        return run

    def unpacked(self, log):
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(log)), mode="r:gz") as archive:
            return {item.name: archive.extractfile(item).read() for item in archive if item.isfile()}

    def test_its_log_is_the_files_and_nothing_else(self, log):
        files = {"report.html": b"<html>", "a b/\xc3\xa4.txt": b"\0\1", "-x": b"", ".hidden": b"1"}
        assert self.unpacked(log(files)) == files

    def test_it_ends_where_there_are_none(self, log):
        assert self.unpacked(log({})) == {}

    def test_its_lines_are_long_so_that_the_nodes_own_words_before_each_do_not_count(self, log):
        lines = log({"noise": os.urandom(100_000)}).splitlines()
        assert {len(line) for line in lines[:-1]} == {8000}

    def test_the_container_runs_the_file_before_the_master_and_sees_what_it_writes(self, default):
        pod = default.pods()[MASTER]
        container = containers(pod)["results"]
        assert container["command"][:2] == ["sh", "-c"]
        assert container["command"][2].strip() == (LOAD_TESTS / "files" / "results.sh").read_text().strip()
        assert container["volumeMounts"] == [{"name": "results", "mountPath": "/results", "readOnly": True}]
        assert {"name": "results", "emptyDir": {}} in pod["spec"]["volumes"]


class TestStart:
    """files/start.sh, run with a stand-in for Locust and one for the sidecar."""

    @pytest.fixture
    def stand_in(self, tmp_path):
        def make(script):
            locust = tmp_path / "locust"
            locust.write_text(f"#!/bin/sh\n{script}\n")
            locust.chmod(0o755)

        make('printf "%s\\n" "$@"\nexit 3')
        return make

    @pytest.fixture
    def command(self, tmp_path, default, stand_in):
        command = containers(default.pods()[WORKERS])["locust"]["command"]
        assert command[2].strip() == (LOAD_TESTS / "files" / "start.sh").read_text().strip()

        def run(port="", **how):
            environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DAPR_HTTP_PORT": port}
            return subprocess.Popen(
                [*command, "--users", "a b"], env=environment, stdout=subprocess.PIPE, text=True, **how
            )

        return run

    @pytest.fixture
    def sidecar(self):
        """A sidecar that takes calls when it is asked the third time."""
        asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_response(204 if len(asked) > 2 else 500)
                self.end_headers()

            def log_message(self, *_):
                pass

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            server.asked = asked  # type: ignore[attr-defined]
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield server
            server.shutdown()
            thread.join()

    def test_without_a_sidecar_locust_begins_at_once(self, command):
        with command() as process:
            assert process.communicate(timeout=10)[0].splitlines() == ["--users", "a b"]
        assert process.returncode == 3

    def test_with_one_it_waits_until_that_takes_calls(self, command, sidecar):
        with command(str(sidecar.server_port)) as process:
            assert process.communicate(timeout=20)[0].splitlines() == ["--users", "a b"]
        assert sidecar.asked == ["/v1.0/healthz/outbound"] * 3

    def test_it_can_be_ended_while_it_waits(self, command, sidecar):
        with command(str(sidecar.server_port)) as process:
            while not sidecar.asked:
                time.sleep(0.01)
            process.terminate()
            assert process.wait(10) == 143

    @pytest.mark.parametrize(
        ("locust", "code"),
        [
            ("trap 'sleep 0.2; echo report; exit 1' TERM\necho begun\nsleep 60 & wait $!", 1),
            ("echo begun\nexec sleep 60", 143),  # it has no handler
        ],
    )
    def test_its_end_is_locusts(self, command, stand_in, locust, code):
        stand_in(locust)
        with command() as process:
            assert process.stdout.readline() == "begun\n"
            process.terminate()
            assert process.wait(10) == code

    def test_its_end_is_locusts_when_that_is_killed(self, command, stand_in):
        stand_in("echo $$\nexec sleep 60")
        with command() as process:
            os.kill(int(process.stdout.readline()), signal.SIGKILL)
            assert process.wait(10) == 137


class TestNotes:
    @pytest.fixture
    def notes(self, render, tmp_path):
        return lambda *arguments: notes_of(LOAD_TESTS, render, tmp_path, *arguments)

    def test_they_say_what_runs_and_the_commands_to_go_on_with(self, notes):
        text = notes("--set", "run.users=50,run.scenario=tour")
        assert "scenario tour, 50 users on 2 workers, against http://chat-service:8010" in text
        assert f"kubectl logs -n daca -f job/{MASTER} -c locust" in text
        assert f"kubectl logs -n daca job/{MASTER} -c results | base64 -d | tar xz" in text
        assert "helm upgrade load-tests charts/load-tests -n daca --reuse-values" in text
        assert "8089" not in text

    def test_the_way_to_the_web_ui_is_told_where_there_is_one(self, notes):
        assert "kubectl port-forward -n daca service/load-tests-web 8089" in notes("--set", "webUI.enabled=true")


def test_every_value_in_the_readme_exists():
    values = yaml.safe_load((LOAD_TESTS / "values.yaml").read_text())
    named = set(re.findall(r"`([a-zA-Z]+(?:\.[a-zA-Z]+)+)(?:=[^`]*)?`", (LOAD_TESTS / "README.md").read_text()))
    ours = {path for path in named if path.partition(".")[0] in values}
    assert len(ours) > 5

    def exists(path):
        found = values
        for name in path.split("."):
            if not isinstance(found, dict) or name not in found:
                return False
            found = found[name]
        return True

    assert {path for path in ours if not exists(path)} == set()


def test_the_chart_is_of_the_projects_release_and_wants_what_charts_daca_wants():
    ours, daca = (
        yaml.safe_load((ROOT / "charts" / name / "Chart.yaml").read_text()) for name in ("load-tests", "daca")
    )
    for key in ("version", "appVersion", "kubeVersion"):
        assert ours[key] == daca[key]


def test_the_image_runs_on_the_python_that_is_named():
    dockerfile = (ROOT / "load-tests" / "Dockerfile").read_text()
    assert f"ARG PYTHON_IMAGE=docker.io/library/python:{VERSIONS['PYTHON_VERSION']}-" in dockerfile
