"""Writes values.schema.json beside every values.schema.yaml under charts/: ``python charts/generate_schema.py``.

The YAML is what people read and change (comments, anchors, descriptions); the JSON is what Helm reads.
"""

import json
from pathlib import Path

import yaml

CHARTS = Path(__file__).parent


def generated(source: Path) -> str:
    """The JSON text for one values.schema.yaml."""
    return json.dumps(yaml.safe_load(source.read_text(encoding="utf-8")), indent=2) + "\n"


if __name__ == "__main__":
    for source in sorted(CHARTS.rglob("values.schema.yaml")):
        source.with_suffix(".json").write_text(generated(source), encoding="utf-8")
