"""Writes what the charts have from elsewhere: ``.venv/bin/python charts/generate_schema.py``.

values.schema.json beside every values.schema.yaml: the YAML is what people read and change (comments, anchors,
descriptions), the JSON is what Helm reads; and docs/values.md, with a row for every value. And the scenarios of the
load tests, which load-tests/actor_load/scenario.py lists: their names in the schema, and in files/scenarios.json with
the rights that each takes.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHARTS = Path(__file__).parent
LOAD_TESTS = CHARTS / "load-tests"
SCENARIOS = LOAD_TESTS / "files" / "scenarios.json"
REFERENCE = CHARTS.parent / "docs" / "values.md"
HEAD = """# Values

Made by `python charts/generate_schema.py` from each chart's `values.schema.yaml` and `values.yaml`, whose comments say
more. Helm refuses what is not here, by its name. Where a default is empty (`""`, `[]`, `{}`) nothing is said, and what
[`defaults`](#chartsdaca) says counts. A name that looks like a number wants quotes in a file, and `--set-string`.
"""

Schema = dict[str, Any]

sys.path.append(str(CHARTS.parent / "load-tests"))


def generated(source: Path) -> str:
    """The JSON text for one values.schema.yaml. A value that is not required may be null there.

    Helm takes a null for a value that is taken away, but hands it on as it is where `--reuse-values` has made the
    values of a release the chart's own.
    """
    schema = _source(source)
    return json.dumps(_with_null(schema, schema), indent=2) + "\n"


def scenarios() -> str:
    """The JSON text for :data:`SCENARIOS`: name -> rights, as values below ``rbac`` are called."""
    from actor_load.scenario import SCENARIOS as LISTED  # noqa: PLC0415 - found by the path above

    return json.dumps({name: list(scenario.rights) for name, scenario in LISTED.items()}, indent=2) + "\n"


def _source(source: Path) -> Schema:
    from actor_load.scenario import NAMES  # noqa: PLC0415

    schema: Schema = yaml.safe_load(source.read_text(encoding="utf-8"))
    if source.parent == LOAD_TESTS:
        schema["properties"]["run"]["properties"]["scenario"]["enum"] = list(NAMES)
    return schema


def reference() -> str:
    """The text of docs/values.md."""
    parts = [HEAD]
    for chart in ("daca", "load-tests"):
        schema = _source(CHARTS / chart / "values.schema.yaml")
        values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text(encoding="utf-8"))
        lines = [f"## charts/{chart}", "", "| value | default | what it is | what it may be |", "|---|---|---|---|"]
        lines += _rows(schema, schema, values, "")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _rows(schema: Schema, node: Schema, values: Any, path: str) -> Iterator[str]:
    """A row for each value below a node of the schema, in the order of the schema's file."""
    for name, child in _resolved(schema, node).get("properties", {}).items():
        full = _resolved(schema, child)
        default = values.get(name) if isinstance(values, dict) else None
        if "properties" in full:
            yield from _rows(schema, child, default, f"{path}{name}.")
        else:
            what = " ".join(full.get("description", "").split())
            cells = (f"`{path}{name}`", f"`{json.dumps(default)}`" if default is not None else "", what, _bounds(full))
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _with_null(schema: Schema, node: Schema) -> Schema:
    """A node in which null may stand for whatever its objects do not require."""
    found = dict(node)
    for key in ("properties", "definitions"):
        if key in node:
            found[key] = {name: _with_null(schema, child) for name, child in node[key].items()}
    for name in found.get("properties", {}).keys() - set(node.get("required", [])):
        child = _with_null(schema, _resolved(schema, node["properties"][name]))
        if "enum" in child:
            child["enum"] = [*child["enum"], None]
        else:
            kinds = child["type"]
            child["type"] = [*(kinds if isinstance(kinds, list) else [kinds]), "null"]
        found["properties"][name] = child
    return found


def _resolved(schema: Schema, node: Schema) -> Schema:
    """The node that a $ref points to, under what is written beside the $ref."""
    if "$ref" not in node:
        return node
    target = schema["definitions"][node["$ref"].rpartition("/")[2]]
    return {**_resolved(schema, target), **{key: value for key, value in node.items() if key != "$ref"}}


def _bounds(node: Schema) -> str:
    """What a value may be, in words."""
    if "enum" in node:
        return ", ".join(f"`{json.dumps(one)}`" for one in node["enum"])
    words = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
    return ", ".join(f"{word} {node[key]:,}" for key, word in words.items() if key in node)


if __name__ == "__main__":
    for source in sorted(CHARTS.rglob("values.schema.yaml")):
        source.with_suffix(".json").write_text(generated(source), encoding="utf-8")
    SCENARIOS.write_text(scenarios(), encoding="utf-8")
    REFERENCE.write_text(reference(), encoding="utf-8")
