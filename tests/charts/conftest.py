"""Charts are tested by rendering them with Helm and reading what comes out; no cluster is needed."""

import functools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from cluster import binaries
from cluster.versions import VERSIONS

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "daca"
LOAD_TESTS = ROOT / "charts" / "load-tests"
DAPR_APIS = ("--api-versions", "dapr.io/v1alpha1", "--api-versions", "dapr.io/v2alpha1")

Document = dict[str, Any]


class Rendered:
    """The documents of one render, found by kind and name."""

    def __init__(self, text: str) -> None:
        documents = yaml.load_all(text, yaml.CSafeLoader)
        self.documents: list[Document] = [document for document in documents if document]

    def get(self, kind: str, name: str) -> Document:
        """The one document of that kind and name."""
        found = [d for d in self.documents if d["kind"] == kind and d["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} documents {kind}/{name}"
        return found[0]

    def names(self, kind: str) -> set[str]:
        """Names of all documents of a kind."""
        return {d["metadata"]["name"] for d in self.documents if d["kind"] == kind}

    def pods(self) -> dict[str, Document]:
        """Every pod, or template of one, by its owner's name; as {metadata, spec}."""
        templates = {
            d["metadata"]["name"]: d["spec"]["template"]
            for d in self.documents
            if d["kind"] in {"Deployment", "StatefulSet", "Job"}
        }
        return templates | {d["metadata"]["name"]: d for d in self.documents if d["kind"] == "Pod"}


def notes_of(chart: Path, render: "Render", folder: Path, *arguments: str) -> str:
    """NOTES.txt as `helm install` prints it; `helm template` leaves it out, so a copy in ``folder`` renders it."""
    copy = folder / chart.name
    shutil.copytree(chart, copy, dirs_exist_ok=True)
    text = (copy / "templates" / "NOTES.txt").read_text()
    (copy / "templates" / "notes.yaml").write_text(
        f'{{{{ define "notes" }}}}{text}{{{{ end -}}}}\n'
        'kind: Notes\nmetadata: {name: notes}\ntext: {{ include "notes" . | toJson }}\n'
    )
    return str(render(*arguments, chart=copy).get("Notes", "notes")["text"])


Helm = Callable[..., subprocess.CompletedProcess[str]]
Render = Callable[..., Rendered]


HELMS = {"helm3": binaries.helm3, "helm4": binaries.helm}


@pytest.fixture(scope="session", params=HELMS)
def helm(request: pytest.FixtureRequest) -> Helm:
    """Runs Helm. Every test that uses it, or what is rendered with it, runs with the last Helm 3 and with Helm 4."""
    binary = HELMS[request.param]()

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([binary, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def dapr_source() -> Path:
    """The folder of Dapr's Go module, of the version that the project installs."""
    module = f"github.com/dapr/dapr@v{VERSIONS['DAPR_VERSION']}"
    pinned = ROOT / "cluster" / "tools" / "dapr-control-plane"
    command = ["go", "-C", str(pinned), "mod", "download", "-json", module]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Path(json.loads(done.stdout)["Dir"])


@pytest.fixture(scope="session")
def crd_schemas(dapr_source):
    """Schemas of Dapr's custom resources by (apiVersion, kind), made to refuse keys that they do not name."""

    def closed(node):
        if isinstance(node, dict):
            node = {key: closed(value) for key, value in node.items()}
            if "properties" in node and not node.get("x-kubernetes-preserve-unknown-fields"):
                node.setdefault("additionalProperties", False)
        elif isinstance(node, list):
            node = [closed(value) for value in node]
        return node

    schemas = {}
    for path in (dapr_source / "charts" / "dapr" / "crds").glob("*.yaml"):
        for crd in yaml.safe_load_all(path.read_text()):
            for version in crd["spec"]["versions"]:
                schema = closed(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                key = (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"])
                schemas[key] = schema
    return schemas


@pytest.fixture(scope="session")
def validate(crd_schemas):
    """Validates a document, given as JSON; each only once, since most are the same in many renders."""
    version = VERSIONS["KUBERNETES_VERSION"].rpartition(".")[0]

    @functools.cache
    def run(text):
        document = json.loads(text)
        if document["apiVersion"].startswith("dapr.io/"):
            jsonschema.validate(document, crd_schemas[document["apiVersion"], document["kind"]])
        else:
            kubernetes_validate.validate(document, version, strict=True)

    return run


@pytest.fixture(scope="session")
def render_anew(helm: Helm) -> Render:
    """Renders charts/daca as it is installed; arguments are those of ``helm template``."""

    def run(*arguments: str | Path, chart: Path = CHART) -> Rendered:
        done = helm("template", "daca", chart, "--namespace", "daca", *DAPR_APIS, *arguments)
        assert done.returncode == 0, done.stderr
        return Rendered(done.stdout)

    return run


@pytest.fixture(scope="session")
def render(render_anew: Render) -> Render:
    """The same, once for each set of arguments; what is made by chance stays the same, too."""
    return functools.cache(render_anew)


@pytest.fixture(scope="session")
def refusal(helm: Helm) -> Callable[..., str]:
    """What Helm says when it refuses to render charts/daca with these arguments."""

    def run(*arguments: str | Path) -> str:
        done = helm("template", "daca", CHART, "--namespace", "daca", *DAPR_APIS, *arguments)
        assert done.returncode != 0, "Helm took what it should refuse"
        return done.stderr

    return run


@pytest.fixture(scope="session")
def default(render: Render) -> Rendered:
    """The chart with the values that it ships."""
    return render()
