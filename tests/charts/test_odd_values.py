"""What people put into values: names that look like numbers, digests, labels that the chart sets, nothing at all."""

import functools
import itertools
import json
import re
import shutil

import pytest
import yaml
from support.charts import CHART, DAPR_APIS, LOAD_TESTS, ROOT, Rendered

from tests.charts import strict
from tests.charts.test_schema import read, resolved

NAMES = ["123", "1e3", "0x10", "true", "null", "on", "2026-11-26", "12e4567"]
"""What a release, a namespace, a secret may be called, and without quotes is something else in YAML 1.1 or 1.2."""
TEXTS = [*NAMES, "~", "0o17", "1_000", "12:30:45", " a b ", "team: chat", "- x", "# x", "*x", '"', "é ☃", "two\nlines"]
PLAIN = {text: f"plain{number}word" for number, text in enumerate(TEXTS)}
DIGEST = "sha256:" + "0123456789abcdef" * 4
REFERENCE = re.compile(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?")


def filled(schema, node, texts):
    """Values with the next of ``texts`` wherever a schema lets one write a text; None where it does not."""
    node = resolved(schema, node)
    kinds = node.get("type", "object")
    if "enum" in node or not re.search(node.get("pattern", ""), "plain0word"):
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
    pytest.param(
        LOAD_TESTS,
        {"webUI.enabled": True, "rbac.nodeMetrics": True, "rbac.faults": True, "nodeFaults.enabled": True},
        id="load-tests",
    ),
]


@pytest.mark.parametrize(("chart", "more"), ALL)
@pytest.mark.parametrize("turn", range(4))
def test_a_text_stays_one_whatever_it_looks_like(text_of, chart, more, turn):
    schema = read(chart / "values.schema.yaml")
    texts = itertools.cycle(TEXTS)
    values = filled(schema, schema, itertools.islice(texts, 5 * turn, None))
    for path, value in more.items():
        put(values, path, value)
    # charts/load-tests puts letters before a name that begins with a digit.
    names = [name for name in NAMES if chart == CHART or name[0].isalpha()]
    release, namespace = names[turn % len(names)], NAMES[turn + 4]
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


def test_the_readers_of_these_tests_are_strict():
    with pytest.raises(yaml.YAMLError, match="twice"):
        strict.read("a: 1\nb: {c: 1, c: 2}", strict.Yaml12)
    assert strict.read("[on, 1e3, x]", strict.Yaml11) == [[("bool", "on"), ("float", "1e3"), "x"]]
    assert strict.read("[on, 0o17, x]", strict.Yaml12) == [["on", ("int", "0o17"), "x"]]


def containers(pod):
    return [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]


@pytest.fixture
def rendered(text_of):
    """Renders a chart with values, given as {dotted path: value}."""

    def run(chart, settings):
        values = {}
        for path, value in settings.items():
            put(values, path, value)
        return Rendered(text_of(chart, values))

    return run


def images(chart):
    """Dotted paths of all images that a chart has."""
    schema = read(chart / "values.schema.yaml")

    def below(node, path):
        properties = resolved(schema, node).get("properties", {})
        if "repository" in properties:
            yield path.removesuffix(".")
        for name, child in properties.items():
            yield from below(child, f"{path}{name}.")

    return list(below(schema, ""))


class TestImages:
    @pytest.mark.parametrize("chart", [CHART, LOAD_TESTS], ids=lambda chart: chart.name)
    @pytest.mark.parametrize(
        ("told", "wanted"),
        [
            ({"digest": DIGEST, "tag": ""}, f"@{DIGEST}"),
            ({"digest": DIGEST, "tag": "7"}, f":7@{DIGEST}"),
            ({"tag": DIGEST}, f"@{DIGEST}"),
            ({"tag": f"@{DIGEST}"}, f"@{DIGEST}"),
            ({"tag": f"7@{DIGEST}"}, f":7@{DIGEST}"),
            ({"repository": f"here:5000/NAME@{DIGEST}", "tag": ""}, f"@{DIGEST}"),
            ({"repository": f"here:5000/NAME:7@{DIGEST}", "tag": ""}, f":7@{DIGEST}"),
            ({"repository": "here:5000/NAME:7", "tag": ""}, ":7"),
        ],
    )
    def test_a_digest_is_taken_wherever_it_is_written(self, rendered, chart, told, wanted):
        settings = {}
        for number, path in enumerate(images(chart)):
            for field, value in {"repository": "here:5000/NAME", **told}.items():
                settings[f"{path}.{field}"] = value.replace("NAME", f"image{number}")
        assert len(settings) >= 4
        used = {item["image"] for pod in rendered(chart, settings).pods().values() for item in containers(pod)}
        assert used == {f"here:5000/image{number}{wanted}" for number in range(len(images(chart)))}
        assert all(REFERENCE.fullmatch(image) for image in used)

    @pytest.mark.parametrize("chart", [CHART, LOAD_TESTS], ids=lambda chart: chart.name)
    @pytest.mark.parametrize("path", ["defaults.image.registry", "global.imageRegistry"])
    def test_one_value_leads_all_of_them_to_another_registry(self, rendered, chart, path):
        before, after = (
            sorted(item["image"] for pod in rendered(chart, told).pods().values() for item in containers(pod))
            for told in ({}, {path: "mirror.example.com:5000/all"})
        )
        assert after == sorted("mirror.example.com:5000/all/" + image.partition("/")[2] for image in before)

    @pytest.mark.parametrize("path", images(CHART))
    def test_two_tags_are_refused_by_name(self, refusal, path):
        told = refusal("--set", f"{path}.repository=here/image:1,{path}.tag=v2")
        assert f"{path}.repository (here/image:1) has a tag, and {path}.tag is v2" in told

    @pytest.mark.parametrize("path", images(CHART))
    @pytest.mark.parametrize(
        ("field", "wrong"), [("repository", "https://here/image"), ("digest", "latest"), ("tag", "sha256:123")]
    )
    def test_what_is_no_reference_is_refused_by_name(self, refusal, path, field, wrong):
        assert f"/{path.replace('.', '/')}/{field}" in refusal("--set", f"{path}.{field}={wrong}")


PARTS = {
    "chatService": "chat-service",
    "agentMemoryService": "agent-memory-service",
    "offlineModel": "offline-model",
    "redis": "redis",
}


class TestWhatTheChartSetsToo:
    """The user's counts, and is there once; what could not work is refused by name."""

    REFUSED = ("app.kubernetes.io/name", "app.kubernetes.io/instance", "dapr.io/enabled", "dapr.io/app-id",
               "dapr.io/app-port", "app.kubernetes.io/component", "load-tests/run", "dapr.io/enable-native-sidecar",
               "PORT", "APP_API_TOKEN")  # fmt: skip

    @pytest.mark.parametrize(("part", "name"), [*PARTS.items(), ("", "daca-master-1")])
    def test_labels_annotations_and_variables(self, helm, rendered, part, name):
        chart = CHART if part else LOAD_TESTS
        pod = rendered(chart, {}).pods()[name]
        own = {
            "podLabels": pod["metadata"]["labels"],
            "podAnnotations": pod["metadata"].get("annotations", {}),
            "extraEnv": {item["name"]: "" for item in pod["spec"]["containers"][0].get("env", [])},
        }
        mine = {field: {key: "mine" for key in keys if key not in self.REFUSED} for field, keys in own.items()}
        settings = {
            f"{part}.podLabels".strip("."): mine["podLabels"],
            f"{part}.podAnnotations".strip("."): mine["podAnnotations"],
        }
        if part != "redis":
            settings[f"{part}.extraEnv".strip(".")] = [{"name": key, "value": "mine"} for key in mine["extraEnv"]]
        pod = rendered(chart, settings).pods()[name]
        assert mine["podLabels"].items() <= pod["metadata"]["labels"].items()
        told = dict(pod["metadata"].get("annotations", {}))
        if "dapr.io/env" in told:  # a list, to which the user's is added
            assert told.pop("dapr.io/env").startswith("GOMEMLIMIT=")
            assert mine["podAnnotations"].pop("dapr.io/env")
        assert mine["podAnnotations"].items() <= told.items()
        if part != "redis":
            env = pod["spec"]["containers"][0].get("env", [])
            assert len({item["name"] for item in env}) == len(env)
            assert {item["name"]: item.get("value") for item in env}.items() >= mine["extraEnv"].items()

    @pytest.mark.parametrize(
        "setting",
        [
            r"chatService.podLabels.app\.kubernetes\.io/name=x",
            r"redis.podLabels.app\.kubernetes\.io/instance=x",
            r"defaults.labels.app\.kubernetes\.io/name=x",
            r"agentMemoryService.podAnnotations.dapr\.io/app-id=x",
            "offlineModel.extraEnv[0].name=PORT",
            "chatService.extraEnv[0].name=APP_API_TOKEN",
            "chatService.extraPodSpec.nodeSelector.x=y",
            "redis.extraPodSpec.volumes[0].name=y",
            "agentMemoryService.extraPodSpec.containers[0].name=y",
        ],
    )
    def test_what_could_not_work_is_refused_by_name(self, refusal, setting):
        field = re.split(r"[\[=]|\.app\\|\.dapr\\", setting)[0].removesuffix(".x")
        assert field in refusal("--set", setting)


class TestDefaults:
    def test_every_pod_takes_them(self, rendered):
        told = {
            "defaults.nodeSelector": {"disk": "ssd"},
            "defaults.tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "defaults.priorityClassName": "high",
            "defaults.podLabels": {"team": "chat"},
            "defaults.labels": {"cost": "1e3"},
            "defaults.resources.limits": {"cpu": 1},
            "defaults.image.pullPolicy": "Always",
            "defaults.logLevel": "WARNING",
        }
        found = rendered(CHART, told)
        assert len(found.pods()) == 5
        for name, pod in found.pods().items():
            spec = pod["spec"]
            assert spec["nodeSelector"] == {"disk": "ssd"}, name
            assert spec["tolerations"] == told["defaults.tolerations"]
            assert spec["priorityClassName"] == "high"
            assert pod["metadata"]["labels"]["team"] == "chat"
            for item in containers(pod):
                assert item["resources"]["limits"]["cpu"] == 1, item["name"]
                assert item["imagePullPolicy"] == "Always"
            if pod["metadata"].get("annotations", {}).get("dapr.io/enabled") == "true":
                assert pod["metadata"]["annotations"]["dapr.io/sidecar-cpu-limit"] == "1"
        for document in found.documents:
            assert document["metadata"]["labels"]["cost"] == "1e3", document["kind"]
        env = found.pods()["chat-service"]["spec"]["containers"][0]["env"]
        assert {"name": "LOG_LEVEL", "value": "WARNING"} in env

    def test_a_part_that_says_something_itself_has_its_own(self, rendered):
        told = {
            "defaults.podLabels": {"team": "chat", "tier": "back"},
            "defaults.nodeSelector": {"disk": "ssd"},
            "defaults.resources.limits": {"cpu": 1, "memory": "1Gi"},
            "redis.podLabels": {"team": "data"},
            "redis.nodeSelector": {"disk": "nvme", "zone": "a"},
            "redis.image.tag": "7.4",
            "defaults.image.tag": "v2",
        }
        pod = rendered(CHART, told).pods()["redis"]
        assert {"team": "data", "tier": "back"}.items() <= pod["metadata"]["labels"].items()
        assert pod["spec"]["nodeSelector"] == {"disk": "nvme", "zone": "a"}
        assert pod["spec"]["containers"][0]["resources"]["limits"] == {"cpu": 1, "memory": "1280Mi"}
        assert pod["spec"]["containers"][0]["image"].endswith(":7.4")

    def test_the_test_runs_where_the_chat_does_with_what_that_may_take(self, rendered):
        told = {"chatService.tolerations": [{"operator": "Exists"}], "chatService.resources.limits": {"cpu": "2"}}
        spec = rendered(CHART, told).get("Pod", "conversation-test")["spec"]
        assert spec["tolerations"] == [{"operator": "Exists"}]
        assert spec["containers"][0]["resources"]["limits"] == {"cpu": "2", "memory": "512Mi"}


class TestWaysOut:
    @pytest.mark.parametrize("part", ["chatService", "agentMemoryService", "offlineModel", "redis"])
    def test_a_pod_takes_more_of_what_pods_have(self, rendered, validate, part):
        told = {
            f"{part}.extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            f"{part}.extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
            f"{part}.initContainers": [{"name": "proxy", "image": "x", "restartPolicy": "Always"}],
            f"{part}.extraPodSpec": {"runtimeClassName": "gvisor"},
            "extraManifests": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}}],
        }
        found = rendered(CHART, told)
        spec = found.pods()[PARTS[part]]["spec"]
        assert spec["runtimeClassName"] == "gvisor"
        assert told[f"{part}.extraVolumes"][0] in spec["volumes"]
        assert told[f"{part}.extraVolumeMounts"][0] in spec["containers"][0]["volumeMounts"]
        assert told[f"{part}.initContainers"][0] in spec["initContainers"]
        for document in found.documents:
            validate(json.dumps(document))

    def test_the_chat_is_reached_from_outside_by_value(self, rendered, validate):
        told = {
            "chatService.ingress": {"enabled": True, "className": "nginx", "hosts": ["a.example", "b.example"],
                                    "tls": [{"secretName": "tls"}]},
            "chatService.httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["a.example"]},
        }  # fmt: skip
        found = rendered(CHART, told)
        ingress = found.get("Ingress", "chat-service")
        validate(json.dumps(ingress))
        assert [rule["host"] for rule in ingress["spec"]["rules"]] == ["a.example", "b.example"]
        route = found.get("HTTPRoute", "chat-service")["spec"]
        assert route["parentRefs"] == [{"name": "gateway"}]
        assert route["rules"][0]["backendRefs"] == [{"name": "chat-service", "port": 8010}]


class TestRedisAddress:
    @pytest.mark.parametrize(
        ("host", "address"),
        [
            ("redis.example.com", "redis.example.com:6379"),
            ("10.0.0.1", "10.0.0.1:6379"),
            ("fd00::10", "[fd00::10]:6379"),
            ("[fd00::10]", "[fd00::10]:6379"),
            ("::ffff:10.0.0.1", "[::ffff:10.0.0.1]:6379"),
        ],
    )
    def test_a_name_or_an_address_is_taken(self, rendered, host, address):
        found = rendered(CHART, {"redis.enabled": False, "externalRedis.host": host})
        for component in ("statestore", "pubsub"):
            assert {"name": "redisHost", "value": address} in found.get("Component", component)["spec"]["metadata"]

    @pytest.mark.parametrize(
        ("host", "mend"),
        [
            ("redis.example.com:6380", "the port is externalRedis.port"),
            ("[fd00::10]:6380", "the port is externalRedis.port"),
            ("redis://redis.example.com", "externalRedis.port"),
            ("rediss://redis.example.com:6380/1", "externalRedis.tls.enabled=true"),
            ("daca@redis.example.com", "externalRedis.username"),
            ("redis-a\\,redis-b", "Redis Cluster is not supported"),
            ("redis.example.com/1", "or is none"),
            ("my redis", "or is none"),
        ],
    )
    def test_what_is_more_is_refused_with_the_value_that_it_belongs_to(self, refusal, host, mend):
        told = refusal("--set", f"redis.enabled=false,externalRedis.host={host}")
        assert "externalRedis.host (" in told
        assert mend in told

    def test_a_password_in_it_is_not_told(self, refusal):
        assert "hunter2" not in refusal("--set", "redis.enabled=false,externalRedis.host=rediss://daca:hunter2@redis")


class TestNothing:
    """`--set x=null` takes a value away, and `--reuse-values` brings none that is new."""

    def paths(self, chart, needed):
        schema = read(chart / "values.schema.yaml")

        def below(node, path):
            node = resolved(schema, node)
            for name, child in node.get("properties", {}).items():
                if (name in node.get("required", [])) == needed and not (
                    needed and resolved(schema, child).get("properties")
                ):
                    yield path + name
                if name in node.get("required", []):
                    yield from below(child, f"{path}{name}.")

        return list(below(schema, ""))

    @pytest.mark.parametrize("chart", [CHART, LOAD_TESTS], ids=lambda chart: chart.name)
    def test_what_is_not_needed_may_be_taken_away(self, helm, chart, validate):
        paths = set(self.paths(chart, needed=False)) - {"redis.image.tag"}  # or a digest
        assert len(paths) > 15
        done = helm("template", "daca", chart, *DAPR_APIS, "--set", ",".join(f"{path}=null" for path in paths))
        assert done.returncode == 0, done.stderr
        found = Rendered(done.stdout)
        for document in found.documents:
            validate(json.dumps(document))
        for pod in found.pods().values():
            for item in containers(pod):
                assert item["imagePullPolicy"] == "IfNotPresent"
                assert {"name": "LOG_LEVEL", "value": ""} not in item.get("env", [])
                assert all(item.get("valueFrom") or item["value"] is not None for item in item.get("env", []))

    @pytest.mark.parametrize("chart", [CHART, LOAD_TESTS], ids=lambda chart: chart.name)
    def test_a_null_that_helm_hands_on_is_nothing_as_well(self, helm, chart, tmp_path, validate):
        # As `--reuse-values` does after an upgrade with `--set x=null`: the values of the release are the chart's own.
        copy = shutil.copytree(chart, tmp_path / chart.name)
        kept, nulls = read(chart / "values.yaml"), {}
        for path in set(self.paths(chart, needed=False)) - {"redis.image.tag"}:
            put(nulls, path, None)
            *folders, name = path.split(".")
            functools.reduce(lambda values, folder: values.get(folder, {}), folders, kept).pop(name, None)
        (copy / "values.yaml").write_text(json.dumps(kept))
        (tmp_path / "nulls.json").write_text(json.dumps(nulls))
        done = helm("template", "daca", copy, *DAPR_APIS, "--values", tmp_path / "nulls.json")
        assert done.returncode == 0, done.stderr
        for document in Rendered(done.stdout).documents:
            validate(json.dumps(document))

    @pytest.mark.parametrize("chart", [CHART, LOAD_TESTS], ids=lambda chart: chart.name)
    def test_what_is_needed_is_asked_for_by_name(self, helm, chart):
        paths = self.paths(chart, needed=True)
        done = helm("template", "daca", chart, *DAPR_APIS, "--set", ",".join(f"{path}=null" for path in paths))
        assert done.returncode != 0
        assert "missing propert" in done.stderr
        unnamed = [path for path in paths if f"'{path.rpartition('.')[2]}'" not in done.stderr]
        assert unnamed == []

    @pytest.mark.parametrize("chart", [CHART, LOAD_TESTS], ids=lambda chart: chart.name)
    def test_the_values_of_an_older_release_do(self, helm, chart, tmp_path, validate):
        copy = shutil.copytree(chart, tmp_path / chart.name)
        # The values of the chart as it was on 2026-11-26, which Helm takes in the place of today's.
        shutil.copy(ROOT / "tests" / "charts" / f"older-{chart.name}.json", copy / "values.yaml")
        done = helm("template", "daca", copy, *DAPR_APIS)
        assert done.returncode == 0, done.stderr
        documents = Rendered(done.stdout).documents
        assert len(documents) >= 10
        for document in documents:
            validate(json.dumps(document))


class TestDependency:
    @pytest.fixture
    def umbrella(self, helm, tmp_path):
        """A chart that has ours as dependencies, each under a name of its own as well."""
        shutil.copytree(CHART, tmp_path / "charts" / "daca")
        shutil.copytree(LOAD_TESTS, tmp_path / "charts" / "load-tests")
        dependencies = [
            {"name": "daca", "version": "0.1.0", "alias": "chat", "condition": "chat.enabled"},
            {"name": "load-tests", "version": "0.1.0", "condition": "load-tests.enabled"},
        ]
        chart = {"apiVersion": "v2", "name": "shop", "version": "1.0.0", "dependencies": dependencies}
        (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(chart))

        def run(settings):
            done = helm("template", "shop", tmp_path, "--namespace", "shop", *DAPR_APIS, "--set", settings)
            assert done.returncode == 0, done.stderr
            return Rendered(done.stdout)

        return run

    def test_a_condition_takes_it_in_or_leaves_it_out(self, umbrella):
        assert umbrella("chat.enabled=true").names("Deployment") >= {"chat-service", "agent-memory-service"}
        assert umbrella("chat.enabled=false").names("Deployment") == set()
        assert umbrella("load-tests.enabled=false").names("Job") == set()

    def test_what_is_global_reaches_all_of_it(self, umbrella):
        found = umbrella("global.imageRegistry=mirror.example.com,global.imagePullSecrets={one},global.other=x")
        assert len(found.pods()) == 7
        for name, pod in found.pods().items():
            assert pod["spec"]["imagePullSecrets"] == [{"name": "one"}], name
            assert {item["image"].partition("/")[0] for item in containers(pod)} == {"mirror.example.com"}

    def test_a_parent_without_a_condition_is_told(self, refusal):
        assert "condition: daca.enabled" in refusal("--set", "enabled=false")


def test_both_charts_make_their_pods_of_the_same_file():
    assert (CHART / "templates" / "_pod.tpl").read_text() == (LOAD_TESTS / "templates" / "_pod.tpl").read_text()
