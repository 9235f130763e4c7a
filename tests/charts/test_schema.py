"""values.yaml, values.schema.yaml and values.schema.json say the same, and a wrong value is told by its name."""

import importlib
import re
import runpy

import pytest
import yaml
from support.charts import CHART, LOAD_TESTS, ROOT

CHARTS = [CHART, LOAD_TESTS]
# Their content is Kubernetes' own, or the user's.
FREE = {"podSecurityContext", "containerSecurityContext", "affinity", "global", "extraPodSpec"}


def read(path):
    return yaml.safe_load(path.read_text())


def resolved(schema, node):
    """The node a $ref points to, with what is written beside the $ref on top."""
    if "$ref" in node:
        target = schema["definitions"][node["$ref"].rpartition("/")[2]]
        return {**resolved(schema, target), **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def schema_keys(schema, node, path=""):
    """Dotted paths of all keys that the schema names."""
    node = resolved(schema, node)
    keys = set()
    for name, child in node.get("properties", {}).items():
        keys |= {path + name} | schema_keys(schema, child, f"{path}{name}.")
    return keys


def value_keys(values, open_paths, path=""):
    """Dotted paths of all keys in values, without what is inside of ``open_paths``."""
    keys = set()
    for name, child in values.items():
        keys.add(path + name)
        if isinstance(child, dict) and path + name not in open_paths:
            keys |= value_keys(child, open_paths, f"{path}{name}.")
    return keys


def open_objects(schema, node, path=""):
    """Dotted paths of objects whose keys the schema leaves to the user."""
    node = resolved(schema, node)
    found = set()
    for name, child in node.get("properties", {}).items():
        target = resolved(schema, child)
        if target.get("type") == "object" and "properties" not in target:
            found.add(path + name)
        found |= open_objects(schema, child, f"{path}{name}.")
    return found


def test_the_reference_is_what_the_schemas_say():
    reference = runpy.run_path(str(ROOT / "charts" / "generate_schema.py"))["reference"]
    assert (ROOT / "docs" / "values.md").read_text() == reference(), "run: python charts/generate_schema.py"


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
class TestAgreement:
    def test_the_json_is_what_the_yaml_says(self, chart):
        generated = runpy.run_path(str(ROOT / "charts" / "generate_schema.py"))["generated"]
        current = (chart / "values.schema.json").read_text()
        assert current == generated(chart / "values.schema.yaml"), "run: python charts/generate_schema.py"

    def test_a_description_with_a_comma_is_quoted(self, chart):
        # In braces YAML would take what is behind the comma for another key.
        def keys(node):
            if isinstance(node, dict):
                yield from node
            for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
                yield from keys(child)

        assert [key for key in keys(read(chart / "values.schema.yaml")) if " " in key and not key.startswith("^")] == []

    def test_values_and_schema_have_the_same_keys(self, chart):
        schema, values = read(chart / "values.schema.yaml"), read(chart / "values.yaml")
        open_paths = open_objects(schema, schema)
        described = {key for key in schema_keys(schema, schema) if not key.startswith("global.")}
        assert value_keys(values, open_paths | {"global"}) == described

    def test_every_value_is_described(self, chart):
        schema = read(chart / "values.schema.yaml")

        def undescribed(node, path=""):
            for name, child in resolved(schema, node).get("properties", {}).items():
                full = resolved(schema, child)
                if "properties" in full:
                    yield from undescribed(child, f"{path}{name}.")
                elif "description" not in full:
                    yield path + name

        assert list(undescribed(schema)) == []

    def test_no_object_takes_unknown_keys_unless_its_keys_are_the_users(self, chart):
        schema = read(chart / "values.schema.yaml")

        def loose(node, path=""):
            node = resolved(schema, node)
            if node.get("type") == "object" and node.get("additionalProperties", True) is True:
                yield path
            for name, child in node.get("properties", {}).items():
                yield from loose(child, f"{path}.{name}")

        names = {path.rpartition(".")[2] for path in loose(schema)}
        assert names <= FREE


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("chatServce.replicas=3", ["chatServce", "not allowed"]),
        ("chatService.replica=3", ["/chatService", "replica", "not allowed"]),
        ("model.apiKey=abc", ["/model", "apiKey", "not allowed"]),
        ("redis.pasword=abc", ["redis", "pasword", "not allowed"]),
        ("dapr.pubsub.redeliverIntervalMs=30s", ["/dapr/pubsub/redeliverIntervalMs", "string", "integer"]),
        ("chatService.replicas=two", ["/chatService/replicas", "string", "integer"]),
        ("chatService.replicas=-1", ["/chatService/replicas", "minimum", "0"]),
        ("chatService.actor.drainTimeoutMs=9000", ["/chatService/actor/drainTimeoutMs", "maximum", "7,000"]),
        ("chatService.turn.whenBusy=queue", ["/chatService/turn/whenBusy", "wait", "reject", "interrupt"]),
        ("chatService.turn.queueLimit=0", ["/chatService/turn/queueLimit", "minimum", "1"]),
        ("chatService.turn.openLimit=100001", ["/chatService/turn/openLimit", "maximum", "100,000"]),
        ("chatService.turn.resumeSeconds=301", ["/chatService/turn/resumeSeconds", "maximum", "300"]),
        ("chatService.turn.keySeconds=59", ["/chatService/turn/keySeconds", "minimum", "60"]),
        ("chatService.turn.keySeconds=24h", ["/chatService/turn/keySeconds", "string", "integer"]),
        (
            "chatService.retention.sessionSeconds=-1",
            ["/chatService/retention/sessionSeconds", "minimum", "0"],
        ),
        ("model.contextTokens=999", ["/model/contextTokens", "minimum", "1,000"]),
        (
            "agentMemoryService.retention.transcriptSeconds=-1",
            ["/agentMemoryService/retention/transcriptSeconds", "minimum", "0"],
        ),
        ("model.tools=maybe", ["/model/tools", "string", "boolean"]),
        ("model.onLength=cut", ["/model/onLength", "answer", "refuse"]),
        ("model.onContentFilter=drop", ["/model/onContentFilter", "answer", "refuse"]),
        ("model.ca.kind=File", ["/model/ca/kind", "ConfigMap", "Secret"]),
        ("model.provider=gpt", ["/model/provider", "offline", "gemini", "vllm"]),
        ("model.baseUrl=api.example.com", ["/model/baseUrl", "http"]),
        ("offlineModel.errorRate=2", ["/offlineModel/errorRate", "maximum", "1"]),
        ("offlineModel.image.tag=12", ["/offlineModel/image/tag", "string"]),
        ("redis.appendfsync=sometimes", ["/appendfsync", "always", "everysec"]),
        ("redis.trim.intervalSeconds=0", ["/trim/intervalSeconds", "minimum", "1"]),
        ("redis.trim.streams={two words}", ["/trim/streams/0", "two words"]),
        ("dapr.pubsub.streamTTL=7d", ["/dapr/pubsub/streamTTL", "7d"]),
        ("dapr.pubsub.queueDepth=0", ["/dapr/pubsub/queueDepth", "minimum", "1"]),
        ("dapr.resiliency.memory.timeout=5", ["/dapr/resiliency/memory/timeout"]),
    ],
)
def test_a_wrong_value_is_told_by_its_name(refusal, setting, told):
    message = refusal("--set", setting)
    assert all(part in message for part in told), message


SERVICES = {
    "chat-service": "chatService",
    "agent-memory-service": "agentMemoryService",
    "offline-model": "offlineModel",
}
_VARIABLE = re.compile(r"name: ([A-Z_]+), value: {{.*? (?:\.root)?\.(Values|part)\.([\w.]+) }}")


def bounds(node):
    found = {key: node[key] for key in ("minimum", "exclusiveMinimum", "maximum") if key in node}
    return found | ({"enum": sorted(set(node["enum"]) - {""})} if "enum" in node else {})


@pytest.mark.parametrize("service", SERVICES)
def test_a_value_may_be_what_the_services_setting_may_be(service):
    module = importlib.import_module(f"{service.replace('-', '_')}.settings")
    settings = module.Settings.model_json_schema()["properties"]
    templates = CHART / "templates"
    text = (templates / "_helpers.tpl").read_text() + (templates / service / "deployment.yaml").read_text()
    schema = read(CHART / "values.schema.yaml")
    compared = 0
    for variable, place, path in _VARIABLE.findall(text):
        if variable.lower() not in settings:
            continue
        node = schema
        for name in [*([SERVICES[service]] if place == "part" else []), *path.split(".")]:
            node = resolved(schema, resolved(schema, node)["properties"][name])
        # The chart may have a bound more: a time to live has to fit what Redis counts with.
        ours, theirs = bounds(node), bounds(settings[variable.lower()])
        assert {key: ours.get(key) for key in theirs} == theirs, variable
        compared += 1
    assert compared >= 3
