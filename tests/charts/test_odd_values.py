"""What people put into values: names that look like numbers, digests, labels that the chart sets, nothing at all."""

import itertools
import json
import re
import shutil

import pytest
import yaml

from tests.charts import strict
from tests.charts.conftest import CHART, DAPR_APIS, LOAD_TESTS, ROOT, Rendered
from tests.charts.test_schema import read, resolved

NAMES = ["123", "1e3", "0x10", "true", "null", "on", "2026-11-26", "12e4567"]
"""What a release, a namespace, a secret may be called, and is something else for YAML 1.1 or 1.2 where it is not quoted."""
TEXTS = [*NAMES, "~", "0o17", "1_000", "12:30:45", " a b ", "team: chat", "- x", "# x", "*x", '"', "é ☃", "two\nlines"]
PLAIN = {text: f"plain{number}word" for number, text in enumerate(TEXTS)}
DIGEST = "sha256:" + "0123456789abcdef" * 4
REFERENCE = re.compile(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?")


def filled(schema, node, texts):
    """Values with the next of ``texts`` wherever a schema lets one write a text; None where it does not."""
    node = resolved(schema, node)
    kinds = node.get("type", "object")
    if "enum" in node or "pattern" in node and not re.search(node["pattern"], "plain0word"):
        return None
    if "string" in kinds:
        return next(text for text in texts if re.search(node.get("pattern", ""), text))
    if kinds == "array":
        item = filled(schema, node["items"], texts)
        return None if item is None else [item]
    if kinds != "object":
        return None
    named = {name: filled(schema, child, texts) for name, child in node.get("properties", {}).items()}
    others = node.get("additionalProperties", "properties" not in node)
    if isinstance(others, dict):
        named[next(texts)] = filled(schema, others, texts)
    elif others:
        named |= {name: next(texts) for name in [next(texts), *node.get("required", [])]}
    return {name: value for name, value in named.items() if value is not None} or None


def put(values, path, value):
    """Sets a value by its dotted path."""
    *folders, name = path.split(".")
    for folder in folders:
        values = values.setdefault(folder, {})
    values[name] = value


def changed(node, change):
    """The same with every text, keys as well, as ``change`` makes it."""
    if isinstance(node, dict):
        return {change(key): changed(value, change) for key, value in node.items()}
    if isinstance(node, list):
        return [changed(item, change) for item in node]
    return change(node) if isinstance(node, str) else node


def odd(text):
    """A text with the odd ones in the places of the plain ones."""
    for one, plain in PLAIN.items():
        text = text.replace(plain, one)
    return text


def without_checksums(node):
    if isinstance(node, dict):
        return {key: without_checksums(value) for key, value in node.items() if not str(key).startswith("checksum/")}
    return [without_checksums(item) for item in node] if isinstance(node, list) else node


@pytest.fixture
def text_of(helm, tmp_path):
    """What `helm template` prints for values, a release and a namespace."""

    def run(chart, values, name="daca", namespace="daca"):
        path = tmp_path / "values.json"
        path.write_text(json.dumps(values))
        done = helm("template", name, chart, "--namespace", namespace, *DAPR_APIS, "--values", path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


WAYS = {"chatService.ingress.enabled": True, "chatService.httpRoute.enabled": True}
ALL = [
    pytest.param(CHART, {"externalRedis.host": "", **WAYS}, id="daca"),
    pytest.param(CHART, {"redis.enabled": False, "externalRedis.host": "r", **WAYS}, id="external Redis"),
    pytest.param(LOAD_TESTS, {"webUI.enabled": True, "rbac.nodeMetrics": True}, id="load-tests"),
]


@pytest.mark.parametrize(("chart", "more"), ALL)
@pytest.mark.parametrize("turn", range(4))
def test_a_text_stays_one_whatever_it_looks_like(text_of, chart, more, turn):
    schema = read(chart / "values.schema.yaml")
    texts = itertools.cycle(TEXTS)
    values = filled(schema, schema, itertools.islice(texts, 5 * turn, None))
    for path, value in more.items():
        put(values, path, value)
    release, namespace = NAMES[turn], NAMES[turn + 4]
    written = text_of(chart, values, release, namespace)
    plain = text_of(
        chart, changed(values, lambda text: PLAIN.get(text, text)), PLAIN[release], PLAIN[namespace]
    )  # fmt: skip
    assert len(re.findall(r"plain\d+word", plain)) > 80
    for loader in (strict.Yaml11, strict.Yaml12):
        wanted = without_checksums(changed(strict.read(plain, loader), odd))
        got = without_checksums(strict.read(written, loader))
        assert sorted(json.dumps(one, sort_keys=True) for one in got) == sorted(
            json.dumps(one, sort_keys=True) for one in wanted
        )


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "charts").glob("*/values*.yaml"), *(ROOT / "cluster").glob("values*.yaml")]),
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_a_values_file_says_the_same_in_every_yaml(path):
    text = path.read_text()
    assert strict.read(text, strict.Yaml11) == strict.read(text, strict.Yaml12)
