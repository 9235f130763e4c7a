"""The images of a kind cluster, and the node image that has them inside; built by buildah into the cache."""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import yaml

from cluster import binaries
from cluster.bare import packages
from cluster.bare.images import (
    CERTIFICATES,
    BaseImage,
    base_images,
    build_base,
    buildah,
    debian_image,
    ensure_python,
    in_cache,
    python_image,
)
from cluster.cache import CACHE, exclusive
from cluster.kind_on_podman.layout import HERE
from cluster.shell import run
from cluster.steps import step
from cluster.versions import ROOT, VERSIONS

TOOLS: Final = (*binaries.NODE, binaries.KUBEADM, binaries.KIND, binaries.HELM3, binaries.SKAFFOLD)
"""What has to be built before any image."""
KIND_MODULE: Final = f"sigs.k8s.io/kind@v{VERSIONS['KIND_VERSION']}"
LOG: Final = CACHE / "log" / "kind-images.log"

_DOCKERFILES: Final = HERE / "dockerfiles"


def make() -> None:
    """Makes the node image, and all that it takes, unless the cache has them.

    Raises:
        CommandError: something could not be built; then the end of what was said has been shown.
    """
    if _made():  # asked first: the others who work on the cache need not be waited for
        return
    with exclusive():
        packages.install()
        binaries.build(TOOLS)
        _ensure_python_by_its_name()
        cluster = cluster_images()
        node = node_image(cluster)
        if in_cache(node.reference):
            return
        for name, image in cluster.items():
            if not in_cache(image.reference):
                with step(f"{name} is built"):
                    build_base(image)
        with step(f"{node.reference} is built"), tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            for number, (name, image) in enumerate(cluster.items()):
                buildah("push", image.reference, f"docker-archive:{scratch}/{number}.tar:{name}", log=LOG)
            build_base(replace(node, mounts={"/archives": Path(scratch)}))


def _made() -> bool:
    if binaries.missing(TOOLS) or not in_cache(python_image()) or not in_cache(python_name()):
        return False
    return in_cache(node_image(cluster_images()).reference)


def python_name() -> str:
    """The base image that the services' Dockerfiles name."""
    dockerfile = (ROOT / "images" / "chat-service" / "Dockerfile").read_text()
    return _found(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile)


def cluster_images() -> dict[str, BaseImage]:
    """All images of a cluster with Dapr and Redis: what it calls each -> how it is built."""
    sources = binaries.sources(binaries.KIND, KIND_MODULE)
    storage, helper = _storage_images((sources / _STORAGE).read_text())
    containerd = (sources / "images/base/files/etc/containerd/config.toml").read_text()
    bare = {_short(image.reference): image for image in base_images()}
    dapr = yaml.safe_load((binaries.dapr_chart() / "values.yaml").read_text())["global"]["registry"]
    redis = yaml.safe_load((ROOT / "charts" / "daca" / "values.yaml").read_text())["redis"]["image"]
    programs = {
        **dict.fromkeys(("kube-apiserver", "kube-controller-manager", "kube-scheduler"), binaries.KUBERNETES),
        "etcd": binaries.ETCD,
        "local-path-provisioner": binaries.LOCAL_PATH_PROVISIONER,
    }
    built = {program: _program(program, tool) for program, tool in programs.items()}
    built |= {
        "coredns": _program("coredns", binaries.COREDNS, "coredns"),
        "kube-proxy": _program("kube-proxy", binaries.KUBERNETES, "kube-proxy", {"DEBIAN_IMAGE": debian_image()}),
        "pause": bare["pause"],
    }
    named = {name: built[_short(name)] for name in kubernetes_images()}
    named[_found(r'sandbox_image = "(\S+)"', containerd)] = bare["pause"]
    named[storage] = built["local-path-provisioner"]
    named[helper] = bare["busybox"]
    named[f"{redis['repository']}:{redis['tag']}"] = bare["redis"]
    for program in ("daprd", "injector", "operator", "placement", "scheduler", "sentry"):
        named[f"{dapr}/{program}:{VERSIONS['DAPR_VERSION']}"] = bare[program]
    return {name: _local(image) for name, image in named.items()}


def kubernetes_images() -> list[str]:
    """The names of the images that kubeadm makes a control plane of."""
    version = f"v{VERSIONS['KUBERNETES_VERSION']}"
    listed = run([binaries.KUBEADM.folder / "kubeadm", "config", "images", "list", "--kubernetes-version", version])
    return listed.split()


def node_image(cluster: Mapping[str, BaseImage]) -> BaseImage:
    """kind's node image with the images of ``cluster`` inside."""
    sources = binaries.sources(binaries.KIND, KIND_MODULE)
    base = sources / "images" / "base" / "files"
    files = {f"kind/{path.relative_to(base)}": path for path in sorted(base.rglob("*")) if path.is_file()}
    files |= {f"bin/{program}": binaries.KUBERNETES.folder / program for program in ("kubelet", "kubectl")}
    files |= {
        "bin/kubeadm": binaries.KUBEADM.folder / "kubeadm",
        "default-storage.yaml": _storage_manifest(sources / _STORAGE),
        **{path.name: path for path in sorted((_DOCKERFILES / "node").iterdir()) if path.name != "Dockerfile"},
    }
    arguments = {
        "DEBIAN_IMAGE": debian_image(),
        "KUBERNETES_VERSION": VERSIONS["KUBERNETES_VERSION"],
        "IMAGES": " ".join(f"{name}={image.key}" for name, image in cluster.items()),
    }
    return _local(BaseImage("node", _DOCKERFILES / "node", files, arguments))


_STORAGE: Final = Path("pkg/build/nodeimage/const_storage.go")


def storage_manifest(go: str) -> str:
    """The manifest of kind's volumes, which it has as a constant of Go."""
    manifest = _found(r"(?s)const defaultStorageManifest = `(.*)`", go)
    for name, image in _constants(go).items():
        manifest = manifest.replace(f"` + {name} + `", image)
    return manifest


def _storage_manifest(source: Path) -> Path:
    folder = CACHE / "kind" / KIND_MODULE.rpartition("@")[2]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "default-storage.yaml"
    file.write_text(storage_manifest(source.read_text()))
    return file


def _storage_images(go: str) -> tuple[str, str]:
    constants = _constants(go)
    return constants["storageProvisionerImage"], constants["storageHelperImage"]


def _constants(go: str) -> dict[str, str]:
    return dict(re.findall(r'const (storage\w+Image) = "([^"]+)"', go))


def _program(
    program: str, tool: binaries.Tool, dockerfile: str = "program", arguments: Mapping[str, str] | None = None
) -> BaseImage:
    files = {program: tool.folder / program, CERTIFICATES.name: CERTIFICATES}
    return BaseImage(program, _DOCKERFILES / dockerfile, files, {"PROGRAM": program, **(arguments or {})})


def _local(image: BaseImage) -> BaseImage:
    """The same under a name that changes with all that decides what is built."""
    return replace(image, reference=f"localhost/daca-kind/{_short(image.reference)}:{image.key}")


def _short(reference: str) -> str:
    """``etcd`` of ``example.org/etcd:3``."""
    return reference.rpartition("/")[2].partition(":")[0]


def _ensure_python_by_its_name() -> None:
    if not in_cache(python_image()):
        ensure_python()
    buildah("tag", python_image(), python_name(), log=LOG)


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise LookupError(f"nothing matches {pattern}")
    return found[1]
