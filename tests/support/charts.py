"""Charts as they render: where they are, and what Helm makes of them as documents."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

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
