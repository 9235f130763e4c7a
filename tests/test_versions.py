"""Versions stand in versions.env; wherever a tool wants to read one elsewhere, it says the same."""

import re
import tomllib

import pytest
import yaml

from cluster.versions import ROOT, VERSIONS

PACKAGES = sorted(path.parent for path in (ROOT / "images").glob("*/pyproject.toml"))
TOOLS = ROOT / "cluster" / "tools"
MODULES = [
    ("kubernetes", "k8s.io/kubernetes", "KUBERNETES_VERSION"),
    ("etcd", "go.etcd.io/etcd/server/v3", "ETCD_VERSION"),
    ("coredns", "github.com/coredns/coredns", "COREDNS_VERSION"),
    ("dapr-control-plane", "github.com/dapr/dapr", "DAPR_VERSION"),
    ("daprd", "github.com/dapr/dapr", "DAPR_SIDECAR_VERSION"),
    ("helm3", "helm.sh/helm/v3", "HELM3_VERSION"),
    ("kind", "sigs.k8s.io/kind", "KIND_VERSION"),
    ("skaffold", "github.com/GoogleContainerTools/skaffold/v2", "SKAFFOLD_VERSION"),
    ("local-path-provisioner", "github.com/rancher/local-path-provisioner", "LOCAL_PATH_PROVISIONER_VERSION"),
]
"""Folder below cluster/tools, the upstream module that it builds, and the name of its version."""


def project(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def required(tool, module):
    found = re.search(rf"^\s*{re.escape(module)} v(\S+)$", (TOOLS / tool / "go.mod").read_text(), re.MULTILINE)
    assert found, f"{tool}/go.mod does not require {module}"
    return found[1]


@pytest.mark.parametrize(("tool", "module", "name"), MODULES)
def test_tools_are_built_in_the_versions_that_are_named(tool, module, name):
    assert required(tool, module) == VERSIONS[name]


def test_no_tool_is_built_in_a_version_that_is_not_named():
    assert {module.parent.name for module in TOOLS.glob("*/go.mod")} == {tool for tool, _, _ in MODULES}


def test_the_sidecar_is_of_the_control_planes_minor_release():
    control_plane, sidecar = VERSIONS["DAPR_VERSION"].split("."), VERSIONS["DAPR_SIDECAR_VERSION"].split(".")
    assert control_plane[:2] == sidecar[:2]


def test_kind_runs_an_image_of_its_release_and_the_kubernetes_of_the_bare_node():
    config = (ROOT / "cluster" / "kind.yaml").read_text()
    assert f"kindest/node:v{VERSIONS['KIND_NODE_VERSION']}@sha256:" in config
    assert f"kind {VERSIONS['KIND_VERSION']} " in config
    assert VERSIONS["KIND_NODE_VERSION"].split(".")[:2] == VERSIONS["KUBERNETES_VERSION"].split(".")[:2]


def test_all_packages_and_the_chart_are_of_one_release():
    chart = (ROOT / "charts" / "daca" / "Chart.yaml").read_text()
    versions = {project(folder)["version"] for folder in [ROOT, *PACKAGES]}
    versions |= set(re.findall(r"^(?:appVersion|version): (\S+)$", chart, re.MULTILINE))
    assert len(versions) == 1


def test_images_run_on_the_python_that_is_named():
    for dockerfile in (ROOT / "images").glob("*/Dockerfile"):
        assert f"ARG PYTHON_IMAGE=docker.io/library/python:{VERSIONS['PYTHON_VERSION']}-" in dockerfile.read_text()


def test_all_packages_run_on_the_same_pythons():
    assert {project(folder)["requires-python"] for folder in [ROOT, *PACKAGES]} == {">=3.11,<3.14"}


def test_github_tries_every_python_that_is_supported_and_all_tests_on_kind():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text())["jobs"]
    assert jobs["check"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert jobs["kind"]["env"] == {"CLUSTER": "kind"}
    assert {"run": "make test"} in jobs["kind"]["steps"]


def test_every_image_is_built_from_the_pins_that_were_tested():
    tested = set(re.findall(r"^([a-z0-9._-]+==\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    for lock in (ROOT / "images").glob("*/requirements.txt"):
        shipped = set(re.findall(r"^([a-z0-9._-]+==\S+)", lock.read_text(), re.MULTILINE))
        assert shipped
        assert shipped <= tested, lock
