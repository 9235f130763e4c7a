"""charts/dapr holds values for the official chart: each exists there, and says what we think it says."""

import functools

import pytest
import yaml
from support.charts import ROOT, Rendered

from cluster.versions import VERSIONS

DEVELOPMENT = ROOT / "charts" / "dapr" / "values.yaml"
HA = ROOT / "charts" / "dapr" / "values-ha.yaml"
BARE = ROOT / "cluster" / "values-bare-dapr.yaml"
SHIPPED = sorted([*(ROOT / "charts" / "dapr").glob("values*.yaml"), *(ROOT / "cluster").glob("values*-dapr.yaml")])


@pytest.fixture(scope="module")
def official(dapr_source):
    """The official chart's own values, its subcharts' among them."""
    chart = dapr_source / "charts" / "dapr"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    for subchart in (chart / "charts").iterdir():
        values[subchart.name] = yaml.safe_load((subchart / "values.yaml").read_text())
    return values


@pytest.fixture(scope="module")
def render_dapr(helm, dapr_source):
    @functools.cache
    def run(*files):
        arguments = [argument for file in files for argument in ("--values", file)]
        done = helm("template", "dapr", dapr_source / "charts" / "dapr", "--namespace", "dapr-system", *arguments)
        assert done.returncode == 0, done.stderr
        return Rendered(done.stdout)

    return run


def unknown(ours, theirs, path=""):
    """Dotted paths in ours that theirs does not have; an empty object of theirs takes anything."""
    for name, value in ours.items():
        if name not in theirs:
            yield path + name
        elif isinstance(value, dict) and theirs[name]:
            yield from unknown(value, theirs[name], f"{path}{name}.")


def environment(rendered):
    (container,) = rendered.pods()["dapr-sidecar-injector"]["spec"]["containers"]
    return {item["name"]: item.get("value") for item in container["env"]}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_value_exists_in_the_official_chart(official, file):
    assert list(unknown(yaml.safe_load(file.read_text()), official)) == []


@pytest.mark.parametrize("file", [DEVELOPMENT, HA], ids=lambda file: file.stem)
def test_the_control_plane_is_of_one_version(render_dapr, file):
    images = {c["image"] for pod in render_dapr(file).pods().values() for c in pod["spec"]["containers"]}
    programs = ("injector", "operator", "placement", "scheduler", "sentry")
    assert images == {f"ghcr.io/dapr/{program}:{VERSIONS['DAPR_VERSION']}" for program in programs}


@pytest.mark.parametrize("file", [DEVELOPMENT, HA], ids=lambda file: file.stem)
def test_sidecars_drop_capabilities_and_placement_tells_its_table(render_dapr, file):
    rendered = render_dapr(file)
    assert environment(rendered)["SIDECAR_DROP_ALL_CAPABILITIES"] == "true"
    assert environment(rendered)["SIDECAR_READ_ONLY_ROOT_FILESYSTEM"] == "true"
    (placement,) = rendered.pods()["dapr-placement-server"]["spec"]["containers"]
    assert "--metadata-enabled" in placement["args"]
    assert "secret-reader" not in rendered.names("Role")


@pytest.mark.parametrize("file", [DEVELOPMENT, HA], ids=lambda file: file.stem)
def test_every_control_plane_container_has_requests_and_seccomp(render_dapr, file):
    for name, pod in render_dapr(file).pods().items():
        for container in pod["spec"]["containers"]:
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert container["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name


@pytest.mark.parametrize("file", [DEVELOPMENT, HA], ids=lambda file: file.stem)
def test_schedulers_that_are_made_anew_have_their_data_and_placement_needs_none(render_dapr, file):
    claims = [
        name
        for name in ("dapr-placement-server", "dapr-scheduler-server")
        if "volumeClaimTemplates" in render_dapr(file).get("StatefulSet", name)["spec"]
    ]
    assert claims == ["dapr-scheduler-server"]


def test_ha_has_three_of_everything(render_dapr):
    rendered = render_dapr(HA)
    replicas = {
        d["metadata"]["name"]: d["spec"]["replicas"] for d in rendered.documents if "replicas" in d.get("spec", {})
    }
    assert replicas == dict.fromkeys(
        [
            "dapr-operator",
            "dapr-placement-server",
            "dapr-scheduler-server",
            "dapr-sentry",
            "dapr-sidecar-injector",
        ],
        3,
    )
    assert "volumeClaimTemplates" not in rendered.get("StatefulSet", "dapr-placement-server")["spec"]


def test_the_bare_node_tags_the_sidecar_as_what_it_is(render_dapr):
    rendered = render_dapr(DEVELOPMENT, BARE)
    assert environment(rendered)["SIDECAR_IMAGE"] == f"198.18.0.1:5000/dapr/daprd:{VERSIONS['DAPR_SIDECAR_VERSION']}"
    images = {c["image"] for pod in rendered.pods().values() for c in pod["spec"]["containers"]}
    assert images == {
        f"198.18.0.1:5000/dapr/{program}:{VERSIONS['DAPR_VERSION']}"
        for program in ("injector", "operator", "placement", "scheduler", "sentry")
    }


def test_the_versions_that_people_are_told_to_install_are_ours():
    version = VERSIONS["DAPR_VERSION"]
    chart = yaml.safe_load((ROOT / "charts" / "daca" / "Chart.yaml").read_text())
    assert chart["annotations"]["dapr.io/version"] == version
    assert f"--version {version} " in (ROOT / "charts" / "dapr" / "README.md").read_text()
