"""Charts are tested by rendering them with Helm and reading what comes out; no cluster is needed."""

import functools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from support.charts import CHART, DAPR_APIS, ROOT, Helm, Render, Rendered

from cluster import binaries
from cluster.versions import VERSIONS

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
