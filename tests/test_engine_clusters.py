"""kind and minikube: the commands that `make up` runs for them. An engine is not needed: one is played by a script.

What is asked of the engine is asked by the real kind. On GitHub `make test CLUSTER=kind` runs it all for real.
"""

import json
import os
import shlex
import subprocess

import pytest
import yaml

from cluster import __main__ as command_line
from cluster import binaries, content, down, engine, target
from cluster.bare import images as bare_images
from cluster.engine import Kind, Minikube
from cluster.errors import CommandError
from cluster.versions import ROOT, VERSIONS

# Writes down what it was asked, and answers as an engine that has every image and no container. It fails to run one.
ENGINE = """\
#!/bin/sh
echo "$(basename "$0") $*" >>"{said}"
case "$1 $2" in
"info --format")
  echo '{{"CgroupVersion":"2","CgroupDriver":"systemd","MemoryLimit":true,"PidsLimit":true,"CPUShares":true}}' ;;
"network ls") echo 0123456789ab ;;
"run "*) exit 1 ;;
esac
"""


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine on which Docker answers, with an empty home; ``said()`` is what Docker and minikube were asked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    said = tmp_path / "said"
    for name in ("docker", "minikube"):
        (programs / name).write_text(ENGINE.format(said=said))
        (programs / name).chmod(0o755)
    (programs / "kind").symlink_to(binaries.kind())
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    for name in ("RECORD", "MADE"):
        monkeypatch.setattr(target, name, tmp_path / ".kube" / name)
    monkeypatch.setattr(down, "RECORD", tmp_path / ".kube" / "RECORD")
    for variable in ("CLUSTER", "NAMESPACE", "IMAGE_REGISTRY", "MODEL", "VALUES", "NODES", "DRY_RUN", "PYTHON_IMAGE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.said = lambda: said.read_text().splitlines() if said.exists() else []
    return monkeypatch


def planned(capsys, *options):
    """The plan, without its comments, as argument lists; environment variables come first."""
    assert command_line.main(["up", "--dry-run", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [shlex.split(line) for line in lines if not line.startswith("#")]


def tagged(repository):
    return {service: f"{repository}/{service}:{content.content_tag(ROOT, service, '')}" for service in content.IMAGES}


class TestPlan:
    def test_where_an_engine_answers_kind_is_what_up_takes(self, machine, capsys):
        assert planned(capsys) == planned(capsys, "--cluster", "kind")

    def test_it_makes_a_cluster_builds_loads_and_installs_in_this_order(self, machine, capsys):
        images = tagged("localhost/daca")
        assert [command[:3] for command in planned(capsys, "--cluster", "kind")] == [
            ["kind", "create", "cluster"],
            *[["docker", "build", "--quiet"]] * len(images),
            *[["kind", "load", "docker-image"]] * len(images),
            ["helm", "upgrade", "--install"],
            ["helm", "upgrade", "--install"],
            ["helm", "test", "daca"],
        ]

    @pytest.mark.parametrize(
        ("cluster", "load", "context"),
        [
            ("kind", "kind load docker-image {} --name daca", "kind-daca"),
            ("minikube", "minikube --profile daca image load {}", "daca"),
        ],
    )
    def test_the_images_that_are_built_are_loaded_and_installed(self, machine, capsys, cluster, load, context):
        commands = planned(capsys, "--cluster", cluster)
        *_, daca, _ = commands
        for service, reference in tagged("localhost/daca").items():
            (build,) = [command for command in commands if reference in command and command[0] == "docker"]
            assert build[build.index("--file") + 1] == f"images/{service}/Dockerfile"
            assert shlex.split(load.format(reference)) in commands
            repository, _, tag = reference.rpartition(":")
            assert any(argument.endswith(f".image.repository={repository}") for argument in daca)
            assert any(argument.endswith(f".image.tag={tag}") for argument in daca)
        assert [command[-1] for command in commands if command[0] == "helm"] == [context] * 3

    def test_minikube_runs_the_kubernetes_of_the_bare_node(self, machine, capsys):
        start, *_ = planned(capsys, "--cluster", "minikube")
        assert start[:4] == ["minikube", "--profile", "daca", "start"]
        assert f"--kubernetes-version={VERSIONS['KUBERNETES_VERSION']}" in start

    def test_dapr_comes_from_the_public_chart_in_the_version_that_is_named(self, machine, capsys):
        *_, dapr, _, _ = planned(capsys, "--cluster", "kind")
        assert dapr[dapr.index("--version") + 1] == VERSIONS["DAPR_VERSION"]
        assert "https://dapr.github.io/helm-charts/" in dapr

    def test_podman_hands_images_over_in_files(self, machine, capsys):
        machine.setattr("cluster.up.answering_engine", lambda: "podman")
        commands = planned(capsys, "--cluster", "kind")
        assert commands[0][:2] == ["KIND_EXPERIMENTAL_PROVIDER=podman", "kind"]
        saved = [command[command.index("--output") + 1] for command in commands if command[:2] == ["podman", "save"]]
        loaded = [command[4] for command in commands if command[2:4] == ["load", "image-archive"]]
        assert saved == loaded == [f".kube/{service}.tar" for service in content.IMAGES]

    def test_settings_of_the_user_are_in_it(self, machine, capsys, tmp_path):
        values = tmp_path / "mine.yaml"
        values.write_text("{}")
        *_, daca, test = planned(
            capsys, "--cluster", "kind", "--values", str(values), "--namespace", "team-a", "--model", "offline"
        )
        assert daca.index("cluster/values-nodeports.yaml") < daca.index(str(values))
        assert "model.provider=offline" in daca
        assert test[test.index("--namespace") + 1] == "team-a"

    def test_it_changes_nothing(self, machine, capsys):
        planned(capsys, "--cluster", "kind")
        assert machine.said() == ["docker info"]
        assert not target.RECORD.exists()
        assert not target.MADE.exists()

    def test_it_is_a_script_that_names_files_of_the_checkout(self, machine, capsys):
        command_line.main(["up", "--cluster", "kind", "--dry-run"])
        script = capsys.readouterr().out
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        files = [word for word in script.split() if word.endswith((".yaml", "Dockerfile"))]
        assert len(files) == 7
        assert all((ROOT / file).is_file() for file in files)

    def test_the_bare_node_has_no_plan_of_commands(self, machine, capsys):
        assert command_line.main(["up", "--cluster", "bare", "--dry-run"]) == 2
        assert "DRY_RUN= is for kind and minikube, not for bare" in capsys.readouterr().err


class TestUp:
    def test_kind_asks_the_engine_for_the_pinned_node_and_leads_its_ports_to_this_machine(self, machine, capsys):
        assert command_line.main(["up", "--cluster", "kind"]) == 1  # where the engine runs no container
        (node,) = [asked for asked in machine.said() if asked.startswith("docker run")]
        assert "--publish=127.0.0.1:30010:30010/TCP" in node
        assert "--publish=127.0.0.1:30001:30001/TCP" in node
        assert node.split()[-1].startswith(f"kindest/node:v{VERSIONS['KIND_NODE_VERSION']}@sha256:")
        assert "failed to create cluster" in capsys.readouterr().err

    def test_a_cluster_that_came_up_half_way_is_taken_down(self, machine, capsys):
        command_line.main(["up", "--cluster", "kind"])
        assert target.made() == {"kind"}
        assert command_line.main(["down"]) == 0
        assert "the kind cluster is gone" in capsys.readouterr().out
        assert target.made() == set()

    def test_without_an_engine_it_says_so(self, machine, capsys):
        machine.setattr("cluster.up.answering_engine", lambda: None)
        assert command_line.main(["up", "--cluster", "minikube"]) == 1
        assert "neither Docker nor Podman answers: start one of the two" in capsys.readouterr().err

    @pytest.mark.parametrize(("profiles", "exists"), [(["daca"], True), (["mine"], False), ([], False)])
    def test_a_profile_of_minikube_is_known(self, machine, tmp_path, profiles, exists):
        told = json.dumps({"valid": [{"Name": name} for name in profiles]})
        (tmp_path / "bin" / "minikube").write_text(f"#!/bin/sh\necho '{told}'\n{'' if profiles else 'exit 14'}\n")
        assert Minikube("docker").exists() is exists

    def test_a_client_without_an_engine_does_not_count(self, machine, tmp_path):
        assert engine.answering_engine() == "docker"
        (tmp_path / "bin" / "docker").write_text("#!/bin/sh\nexit 1\n")
        assert engine.answering_engine() != "docker"

    def test_a_tool_that_is_missing_is_named(self, machine, tmp_path):
        (tmp_path / "bin" / "minikube").unlink()
        with pytest.raises(CommandError, match="minikube is not installed, or not in PATH"):
            Minikube("docker").create()[0].take()


class TestConfig:
    def test_kind_leads_the_node_ports_of_the_values_on(self):
        (node,) = yaml.safe_load((ROOT / "cluster" / "kind.yaml").read_text())["nodes"]
        values = yaml.safe_load((ROOT / "cluster" / "values-nodeports.yaml").read_text())
        ports = {values[service]["service"]["nodePort"] for service in ("chatService", "agentMemoryService")}
        assert {mapping["hostPort"] for mapping in node["extraPortMappings"]} == ports
        assert {mapping["containerPort"] for mapping in node["extraPortMappings"]} == ports

    def test_a_kind_cluster_has_the_name_that_up_looks_for(self):
        config = yaml.safe_load((ROOT / "cluster" / "kind.yaml").read_text())
        assert Kind.context == f"kind-{config['name']}"

    def test_images_that_are_loaded_are_not_those_of_the_bare_nodes_registry(self):
        assert engine.LOCAL_REPOSITORY.split("/")[0] == "localhost"
        assert bare_images.REGISTRY not in engine.LOCAL_REPOSITORY
