"""Writes what the charts have from elsewhere: ``.venv/bin/python charts/generate_schema.py``.

values.schema.json beside every values.schema.yaml: the YAML is what people read and change (comments, anchors,
descriptions), the JSON is what Helm reads. And the scenarios of the load tests, which load-tests/actor_load/scenario.py
lists: their names in the schema, and in files/scenarios.json with the rights that each takes.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

CHARTS = Path(__file__).parent
LOAD_TESTS = CHARTS / "load-tests"
SCENARIOS = LOAD_TESTS / "files" / "scenarios.json"

sys.path.append(str(CHARTS.parent / "load-tests"))


def generated(source: Path) -> str:
    """The JSON text for one values.schema.yaml."""
    from actor_load.scenario import NAMES  # noqa: PLC0415 - found by the path above

    schema: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    if source.parent == LOAD_TESTS:
        schema["properties"]["run"]["properties"]["scenario"]["enum"] = list(NAMES)
    return json.dumps(schema, indent=2) + "\n"


def scenarios() -> str:
    """The JSON text for :data:`SCENARIOS`: name -> rights, as values below ``rbac`` are called."""
    from actor_load.scenario import SCENARIOS as LISTED  # noqa: PLC0415

    return json.dumps({name: list(scenario.rights) for name, scenario in LISTED.items()}, indent=2) + "\n"


if __name__ == "__main__":
    for source in sorted(CHARTS.rglob("values.schema.yaml")):
        source.with_suffix(".json").write_text(generated(source), encoding="utf-8")
    SCENARIOS.write_text(scenarios(), encoding="utf-8")
