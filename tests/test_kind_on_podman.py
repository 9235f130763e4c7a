"""kind on Podman: what it writes for the engine and for kind. `make kind-test` runs it whole, as root."""

import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from cluster import binaries
from cluster.bare import images as bare_images
from cluster.errors import CommandError
from cluster.kind_on_podman import images, namespaces
from cluster.kind_on_podman.layout import HERE, RUN, STORAGE
from cluster.versions import ROOT, VERSIONS

DAPR = f"github.com/dapr/dapr@v{VERSIONS['DAPR_VERSION']}"
GO = """\
const storageProvisionerImage = "example.org/provisioner:v1"
const storageHelperImage = "example.org/helper:v2"
const defaultStorageManifest = `
image: ` + storageProvisionerImage + `
args: [--helper-image, ` + storageHelperImage + `]
`
"""


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """The images of a cluster, as they would be built where nothing has been built yet."""
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    for program in ("usr/bin/catatonit", "bin/busybox"):
        (tmp_path / program).write_text("a program")
    monkeypatch.setattr(bare_images, "unpacked", lambda: tmp_path)
    monkeypatch.setattr(bare_images, "CERTIFICATES", tmp_path / "bin" / "busybox")
    monkeypatch.setattr(images, "CERTIFICATES", tmp_path / "bin" / "busybox")
    names = ["apiserver", "controller-manager", "scheduler", "proxy"]
    names = [*(f"example.org/kube-{name}:v1" for name in names), "example.org/coredns/coredns:v1"]
    monkeypatch.setattr(images, "kubernetes_images", lambda: [*names, "example.org/pause:3", "example.org/etcd:3"])
    return images.cluster_images()


def test_a_cluster_is_made_as_kind_yaml_says_but_of_the_image_that_is_there():
    text = (ROOT / "cluster" / "kind.yaml").read_text()
    made = yaml.safe_load(namespaces.kind_config(text, "localhost/node:1"))
    as_it_stands = yaml.safe_load(text)
    assert made["nodes"][0].pop("image") == "localhost/node:1"
    assert "@sha256:" in as_it_stands["nodes"][0].pop("image")
    assert made == as_it_stands


def test_the_manifest_of_volumes_names_its_images():
    manifest = yaml.safe_load(images.storage_manifest(GO))
    assert manifest == {"image": "example.org/provisioner:v1", "args": ["--helper-image", "example.org/helper:v2"]}


def test_kinds_own_manifest_of_volumes_is_found():
    source = binaries.sources(binaries.KIND, images.KIND_MODULE) / "pkg/build/nodeimage/const_storage.go"
    documents = list(yaml.safe_load_all(images.storage_manifest(source.read_text())))
    assert {"StorageClass", "Deployment"} <= {document["kind"] for document in documents}


def test_a_node_has_every_image_that_the_charts_and_kubernetes_name(cluster):
    redis = yaml.safe_load((ROOT / "charts" / "daca" / "values.yaml").read_text())["redis"]["image"]
    assert f"{redis['repository']}:{redis['tag']}" in cluster
    assert set(images.kubernetes_images()) <= set(cluster)
    assert sum(name.endswith(("/daprd:1.18.3", "/placement:1.18.3")) for name in cluster) == 2


def test_every_image_has_a_dockerfile_and_its_files_are_the_ones_it_copies(cluster):
    for name, image in cluster.items():
        dockerfile = bare_images.HERE / "dockerfiles" / image.dockerfile / "Dockerfile"
        assert dockerfile.is_file(), name
        if "PROGRAM" in image.arguments:
            assert image.arguments["PROGRAM"] in image.files, name


def test_another_image_inside_is_another_node_image(cluster):
    node = images.node_image(cluster)
    name = next(iter(cluster))
    cluster[name] = bare_images.BaseImage("example.org/other:1", "pause")
    assert images.node_image(cluster).reference != node.reference


def test_the_python_that_the_dockerfiles_name_is_found():
    for dockerfile in (ROOT / "images").glob("*/Dockerfile"):
        assert f"ARG PYTHON_IMAGE={images.python_name()}\n" in dockerfile.read_text()


def test_the_engine_writes_below_the_cache_and_finds_what_buildah_has_built():
    files = namespaces.settings(Path("/podman"), Path("/bare"))
    engine, storage = tomllib.loads(files["containers.conf"]), tomllib.loads(files["storage.conf"])
    assert engine["network"]["network_config_dir"].startswith(str(RUN))
    assert engine["engine"]["image_copy_tmp_dir"].startswith(str(RUN))
    assert storage["storage"]["graphroot"] == str(STORAGE)
    command = [str(part) for part in bare_images._buildah_command()]
    assert storage["storage"]["options"]["additionalimagestores"] == [command[command.index("--root") + 1]]


def test_the_commands_of_the_readme_are_typed_as_they_stand_there():
    script = (HERE / "test.sh").read_text()
    awk = next(line.strip() for line in script.splitlines() if line.strip().startswith("awk "))
    command = awk.rpartition(" >")[0]
    typed = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert typed.startswith("kind create cluster --config cluster/kind.yaml\n")
    assert typed.endswith("helm test daca -n daca --logs\n")
    assert "minikube" not in typed
    assert typed in (ROOT / "README.md").read_text()


def test_a_second_run_is_told_that_one_is_at_work(monkeypatch, tmp_path):
    monkeypatch.setattr(namespaces, "LOCK", tmp_path / "lock")
    with namespaces._alone(), pytest.raises(CommandError, match="let it end first"), namespaces._alone():
        pass


def test_a_machine_with_newer_cgroups_is_told_that_nobody_has_tried_it(monkeypatch, tmp_path):
    monkeypatch.setattr(namespaces.packages, "preflight", list)
    monkeypatch.setattr(namespaces.machine, "UNIFIED", tmp_path)
    with pytest.raises(CommandError, match="version 1 only"):
        namespaces.run(["true"])


def test_what_a_run_that_was_killed_left_running_is_ended(monkeypatch, tmp_path):
    left = subprocess.Popen(["sleep", "600"])
    group = tmp_path / "group"
    group.mkdir()
    (group / "cgroup.procs").write_text(f"{left.pid}\n")
    monkeypatch.setattr(namespaces.machine, "cgroups", lambda _: [group] if left.poll() is None else [])
    monkeypatch.setattr(namespaces.machine, "remove_cgroups", lambda _: None)
    monkeypatch.setattr(namespaces, "RUN", tmp_path / "run")
    (tmp_path / "run").mkdir()
    namespaces._clear()
    assert left.wait() < 0
    assert not (tmp_path / "run").exists()


def test_the_folder_of_kernel_modules_stays_only_where_it_was_before(monkeypatch, tmp_path):
    folder = tmp_path / "modules"
    monkeypatch.setattr(namespaces, "MODULES", folder)
    with namespaces._modules():
        assert folder.is_dir()
    assert not folder.exists()
    folder.mkdir()
    with namespaces._modules():
        pass
    assert folder.is_dir()


def test_daprs_chart_names_its_images_as_the_published_one_does():
    values = (binaries.sources(binaries.DAPR_CONTROL_PLANE, DAPR) / "charts" / "dapr" / "values.yaml").read_text()
    assert yaml.safe_load(namespaces.released(values, "1.2.3"))["global"]["tag"] == "1.2.3"
