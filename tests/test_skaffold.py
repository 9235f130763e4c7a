"""skaffold.yaml and what it calls, without a cluster: Skaffold reads and renders it for every one it is made for."""

import json
import re
import shlex
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import yaml
from support.skaffold import Skaffold, kubeconfig_of

from cluster import bare
from cluster.bare import __main__ as command_line
from cluster.bare.images import base_images
from cluster.bare.layout import NAME, REGISTRY
from cluster.content import IMAGES as BUILT
from cluster.content import PLACEMENT_RELAY, SERVICES
from cluster.versions import ROOT, VERSIONS

BARE = NAME
CONTEXTS = ("kind-kind", "minikube", BARE)
CONFIG = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
DAPR_CONFIG = yaml.safe_load((ROOT / "charts" / "dapr" / "skaffold.yaml").read_text())
PROFILES = {profile["name"]: profile for profile in CONFIG["profiles"]}
IMAGES = ROOT / "images"
SIDECARS = ("chat-service", "agent-memory-service")
DIGEST = f"sha256:{'a' * 64}"


@pytest.fixture(scope="module")
def skaffold(tmp_path_factory):
    """Skaffold on one of CONTEXTS, where no cluster answers and no engine builds."""
    folder = tmp_path_factory.mktemp("skaffold")

    def on(context):
        home = folder / f"home-{len(list(folder.iterdir()))}"
        kubeconfig = kubeconfig_of(folder / f"{context}.json", CONTEXTS, context)
        return Skaffold(ROOT, home, kubeconfig, DOCKER_HOST="tcp://127.0.0.1:1")

    return on


def read(done):
    assert (done.returncode, done.stderr) == (0, "")
    return yaml.safe_load(done.stdout)


def rendered(skaffold, tmp_path, *arguments, **environment):
    """What `skaffold render` makes of images that are built, by kind and name."""
    artifacts = read(skaffold.run("diagnose", "--yaml-only"))["build"]["artifacts"]
    built = [{"imageName": item["image"], "tag": f"{item['image']}:skaffold-1@{DIGEST}"} for item in artifacts]
    file = tmp_path / "built.json"
    file.write_text(json.dumps({"builds": built}))
    done = skaffold.run("render", "--build-artifacts", file, "--digest-source", "tag", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def spec(manifests, service):
    return manifests["Deployment", service]["spec"]["template"]["spec"]


def container(manifests, service):
    return spec(manifests, service)["containers"][0]


class TestSchema:
    def test_it_is_of_the_newest_version_that_this_skaffold_knows(self, skaffold):
        newest = skaffold("kind-kind").run("schema", "list").stdout.split()[-1]
        assert {CONFIG["apiVersion"], DAPR_CONFIG["apiVersion"]} == {newest}

    @pytest.mark.parametrize(("context", "profile"), [*product(CONTEXTS, ["", "verify"]), (BARE, "bare-dev")])
    def test_it_is_read_without_a_warning(self, skaffold, context, profile):
        assert read(skaffold(context).run("diagnose", "--yaml-only", f"--profile={profile}"))

    @pytest.mark.parametrize("context", ["kind-kind", "minikube"])
    def test_so_is_the_profile_of_docker(self, skaffold, context):
        made = read(skaffold(context).run("diagnose", "--yaml-only", "--profile=dev"))
        targets = {item["image"]: item["docker"].get("target") for item in made["build"]["artifacts"]}
        assert targets == dict.fromkeys(SERVICES, "dev") | {PLACEMENT_RELAY: None}

    @pytest.mark.parametrize("context", CONTEXTS)
    def test_so_is_the_module_of_dapr(self, skaffold, context):
        made = read(skaffold(context).run("diagnose", "--yaml-only", folder="charts/dapr"))
        (release,) = made["deploy"]["helm"]["releases"]
        assert (release["name"], release["namespace"]) == ("dapr", "dapr-system")
        assert release["upgradeOnChange"] is False
        assert ("remoteChart" in release) is (context != BARE)
        assert all(Path(values).is_file() for values in release["valuesFiles"])

    def test_dev_takes_its_profile_by_itself(self, skaffold):
        said = skaffold("kind-kind").run("dev", "--verbosity", "info")
        assert re.findall('applying profile: (\\S+?)"', said.stdout + said.stderr) == ["dev"]

    def test_run_takes_none_on_kind_and_minikube(self, skaffold):
        for context in ("kind-kind", "minikube"):
            made = read(skaffold(context).run("diagnose", "--yaml-only"))
            assert [item["docker"] for item in made["build"]["artifacts"]] == [
                {"dockerfile": f"{image}/Dockerfile"} for image in BUILT
            ]

    def test_the_bare_nodes_profiles_are_taken_by_its_context(self, skaffold):
        made = read(skaffold(BARE).run("diagnose", "--yaml-only"))
        assert [item["image"] for item in made["build"]["artifacts"]] == [f"{REGISTRY}/{name}" for name in BUILT]
        assert made["build"]["insecureRegistries"] == [REGISTRY]
        activations = {name: profile["activation"] for name, profile in PROFILES.items()}
        assert activations["bare"] == [{"kubeContext": BARE}]
        assert activations["bare-dev"] == [{"kubeContext": BARE, "command": "dev"}]
        assert activations["dev"] == [{"kubeContext": f"!{BARE}", "command": "dev"}]


class TestVersions:
    def test_dapr_is_the_one_that_make_up_installs(self):
        (release,) = DAPR_CONFIG["deploy"]["helm"]["releases"]
        assert release["version"] == VERSIONS["DAPR_VERSION"]

    def test_verify_runs_on_the_pythons_of_the_images(self):
        base = f"ARG PYTHON_IMAGE={CONFIG['verify'][0]['container']['image']}\n"
        assert all(base in (IMAGES / image / "Dockerfile").read_text() for image in BUILT)
        (patch,) = [patch for patch in PROFILES["bare"]["patches"] if patch["path"] == "/verify/0/container/image"]
        assert patch["value"] in {image.reference for image in base_images()}


class TestRender:
    @pytest.mark.parametrize("context", CONTEXTS)
    def test_the_pods_run_what_was_built(self, skaffold, tmp_path, context):
        manifests = rendered(skaffold(context), tmp_path)
        prefix = f"{REGISTRY}/" if context == BARE else ""
        relays = [relay for service in SIDECARS for relay in spec(manifests, service)["initContainers"]]
        assert {relay["image"] for relay in relays} == {f"{prefix}{PLACEMENT_RELAY}:skaffold-1@{DIGEST}"}
        for service in SERVICES:
            assert container(manifests, service)["image"] == f"{prefix}{service}:skaffold-1@{DIGEST}"
            assert container(manifests, service)["securityContext"]["readOnlyRootFilesystem"] is True
        redis = manifests["StatefulSet", "redis"]["spec"]["template"]["spec"]["containers"][0]["image"]
        assert redis.startswith(REGISTRY if context == BARE else "docker.io/library/redis:")

    def test_nothing_in_it_is_made_at_random(self, skaffold, tmp_path):
        assert not [name for kind, name in rendered(skaffold("minikube"), tmp_path) if kind == "Secret"]

    def test_it_is_for_the_namespace_daca_or_another(self, skaffold, tmp_path):
        binding = ("RoleBinding", "conversation-test")
        manifests = rendered(skaffold("kind-kind"), tmp_path)
        assert manifests[binding]["subjects"][0]["namespace"] == "daca"
        manifests = rendered(skaffold("kind-kind"), tmp_path, SKAFFOLD_NAMESPACE="mine")
        assert manifests[binding]["subjects"][0]["namespace"] == "mine"

    @pytest.mark.parametrize(("context", "profile"), [("kind-kind", "dev"), ("minikube", "dev"), (BARE, "bare-dev")])
    def test_dev_relaxes_what_it_needs_and_no_more(self, skaffold, tmp_path, context, profile):
        strict = rendered(skaffold(context), tmp_path)
        relaxed = rendered(skaffold(context), tmp_path, "--profile", profile)
        assert relaxed.keys() == strict.keys()
        for service in SERVICES:
            assert relaxed["Deployment", service]["spec"]["replicas"] == 1
            hardened = container(strict, service)["securityContext"]
            assert container(relaxed, service)["securityContext"] == hardened | {"readOnlyRootFilesystem": False}


class TestSync:
    @pytest.mark.parametrize("service", SERVICES)
    def test_every_source_of_a_service_goes_where_its_image_has_it(self, service):
        (rules,) = [item["sync"]["manual"] for item in CONFIG["build"]["artifacts"] if item["image"] == service]
        copied = re.findall(r"^COPY --chown=10001:10001 (.*) (/\S+)/$", dockerfile(service), re.MULTILINE)
        assert copied == [(f"common/src {service}/src", "/app")]
        assert rules == [
            {"src": f"{folder}/**/*.py", "dest": "/app", "strip": f"{folder}/"} for folder in copied[0][0].split()
        ]
        assert all(list(IMAGES.glob(rule["src"])) for rule in rules)

    @pytest.mark.parametrize("service", BUILT)
    def test_the_bare_node_builds_anew_for_what_docker_would(self, service):
        (artifact,) = [item for item in PROFILES["bare"]["build"]["artifacts"] if item["image"].endswith(f"/{service}")]
        copied = re.findall(r"^COPY (?:--\S+ )?(.*) \S+$", dockerfile(service), re.MULTILINE)
        sources = {source for sources in copied for source in sources.split()} | {f"{service}/Dockerfile"}
        assert set(artifact["custom"]["dependencies"]["paths"]) == sources
        assert all((IMAGES / source).exists() for source in sources)

    def test_the_bare_nodes_images_sync_as_the_others_do(self):
        bare = PROFILES["bare"]["build"]["artifacts"]
        assert [item.get("sync") for item in bare] == [item.get("sync") for item in CONFIG["build"]["artifacts"]]

    def test_each_bare_image_is_built_by_the_command_that_the_node_has(self, monkeypatch):
        commands = {item["custom"]["buildCommand"] for item in PROFILES["bare"]["build"]["artifacts"]}
        patches = PROFILES["bare-dev"]["patches"]
        commands |= {patch["value"] for patch in patches if patch["path"].endswith("buildCommand")}
        built = []
        monkeypatch.setattr(bare, "build_image", lambda *arguments: built.append(arguments))
        for command in commands:
            words = shlex.split(command)
            assert words[:6] == ["cd", "..", "&&", ".venv/bin/python", "-m", "cluster.bare"]
            monkeypatch.setattr(sys, "argv", words[5:])
            assert command_line.main() == 0
        assert sorted(built) == [("$IMAGE", Path("$BUILD_CONTEXT"), target) for target in ("", "dev")]


class TestImages:
    def test_all_dockerfiles_are_of_one_shape(self):
        shapes = set()
        for service in SERVICES:
            text = dockerfile(service).replace(service, "SERVICE").replace(service.replace("-", "_"), "SERVICE")
            shapes.add(re.sub(r"EXPOSE \d+", "EXPOSE PORT", text))
        assert len(shapes) == 1

    @pytest.mark.parametrize("service", SERVICES)
    def test_the_image_that_is_built_by_default_has_nothing_for_development(self, service):
        stages = re.split(r"^FROM ", dockerfile(service), flags=re.MULTILINE)[1:]
        names = [stage.splitlines()[0] for stage in stages]
        assert names == ["${PYTHON_IMAGE} AS requirements", "requirements AS dev", "requirements"]
        for stage in (stages[0], stages[2]):
            assert "requirements-dev" not in stage
            assert "watchfiles" not in stage
            assert "10001:10001 " not in stage  # of a --chown

    @pytest.mark.parametrize("service", SERVICES)
    def test_the_reloader_changes_no_pin_of_a_service(self, service):
        added, pinned = pins(IMAGES / "requirements-dev.txt"), pins(IMAGES / service / "requirements.txt")
        assert "watchfiles" in added
        assert "watchfiles" not in pinned
        assert {name: version for name, version in added.items() if name in pinned}.items() <= pinned.items()


class TestVerify:
    def test_its_job_runs_what_the_release_has(self, skaffold, tmp_path):
        (test,) = CONFIG["verify"]
        job = yaml.safe_load((ROOT / test["executionMode"]["kubernetesCluster"]["jobManifestPath"]).read_text())
        manifests = rendered(skaffold("kind-kind"), tmp_path)
        pod = job["spec"]["template"]["spec"]
        (volume,) = pod["volumes"]
        scripts = manifests["ConfigMap", volume["configMap"]["name"]]["data"]
        assert set(re.findall(r"/test/(\S+)", test["container"]["command"][-1])) == scripts.keys()
        assert ("ServiceAccount", pod["serviceAccountName"]) in manifests
        (only,) = pod["containers"]
        assert only["name"] == test["container"]["name"]
        read = set(re.findall(r"""environ\[['"]([A-Z_]+)""", "".join(scripts.values())))
        given = {item["name"]: item["value"] for item in only["env"]}
        assert given.keys() == {name for name in read if not name.startswith("KUBERNETES_")}
        assert given["RELEASE"] == CONFIG["manifests"]["helm"]["releases"][0]["name"]
        for url in (item["value"] for item in only["env"] if item["name"].endswith("_URL")):
            name, port = url.removeprefix("http://").split(":")
            assert manifests["Service", name]["spec"]["ports"][0]["port"] == int(port)


class TestDapr:
    """charts/dapr/ensure.sh, with stand-ins for kubectl and Skaffold."""

    @pytest.fixture
    def ensure(self, tmp_path):
        def run(injector, probe):
            tools = {
                "kubectl": f'case "$*" in *get*) {injector} ;; *) {probe} ;; esac',
                "skaffold": 'env | grep ^SKAFFOLD_ | sort; echo "skaffold $*"; pwd',
            }
            for name, body in tools.items():
                (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
                (tmp_path / name).chmod(0o755)
            return subprocess.run(
                [ROOT / "charts" / "dapr" / "ensure.sh"],
                env={
                    "PATH": f"{tmp_path}:/usr/bin:/bin",
                    "SKAFFOLD_KUBE_CONTEXT": "kind-kind",
                    "SKAFFOLD_NAMESPACE": "mine",
                },
                capture_output=True,
                text=True,
                check=False,
            )

        return run

    def test_a_dapr_that_is_there_stays_whatever_its_version(self, ensure):
        done = ensure("echo -n ghcr.io/dapr/injector:1.15.4", "exit 1")
        assert (done.returncode, done.stdout) == (0, "Dapr 1.15.4 is there and stays as it is\n")

    def test_where_there_is_none_its_module_runs_with_settings_of_its_own(self, ensure, tmp_path):
        asked = tmp_path / "asked"
        # The injector answers the second time.
        probe = f'[ ! -e {asked} ] || sidecar=daprd; echo "pod app $sidecar volume"; echo probe >> {asked}'
        done = ensure("true", probe)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[1:] == [
            "SKAFFOLD_UPDATE_CHECK=false",
            "skaffold run --kube-context kind-kind --interactive=false",
            str(ROOT / "charts" / "dapr"),
        ]
        assert asked.read_text().split() == ["probe"] * 2

    def test_a_cluster_that_cannot_be_asked_gets_no_dapr(self, ensure):
        done = ensure("exit 1", "exit 1")
        assert done.returncode != 0
        assert "skaffold" not in done.stdout


def dockerfile(service):
    return (IMAGES / service / "Dockerfile").read_text()


def pins(lock):
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", lock.read_text(), re.MULTILINE))
