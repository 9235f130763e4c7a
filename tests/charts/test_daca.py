"""What charts/daca makes of its values."""

import importlib
import json
import re
from base64 import b64decode
from pathlib import Path

import pytest
import yaml
from support.charts import CHART, ROOT, notes_of

from cluster.bare import images
from cluster.versions import VERSIONS

SERVICES = ("chat-service", "agent-memory-service", "offline-model")
SIDECARS = ("chat-service", "agent-memory-service")
TEST = "conversation-test"
EXTERNAL = "redis.enabled=false,externalRedis.host=redis.example.com"
# Every values file for this chart; those that end in -dapr.yaml are for Dapr's.
FILES = sorted(
    path
    for folder in (CHART, ROOT / "cluster")
    for path in folder.glob("values*.yaml")
    if path != CHART / "values.yaml" and not path.stem.endswith(("-dapr", ".schema"))
)
SHIPPED = {
    "defaults": [],
    **{path.name: ["--values", str(path)] for path in FILES},
    "gemini": ["--set", "model.provider=gemini"],
    "external Redis": ["--set", f"{EXTERNAL},externalRedis.tls.enabled=true,externalRedis.existingSecret.name=r"],
    "everything optional": ["--values", str(Path(__file__).with_name("everything-optional.yaml"))],
}


def annotations(pod):
    return pod["metadata"]["annotations"]


def environment(pod):
    return {item["name"]: item.get("value") for item in pod["spec"]["containers"][0]["env"]}


def metadata_of(component):
    return {item["name"]: item.get("value", item.get("secretKeyRef")) for item in component["spec"]["metadata"]}


class TestEveryRender:
    @pytest.mark.parametrize("arguments", SHIPPED.values(), ids=SHIPPED.keys())
    def test_it_is_valid_for_kubernetes_and_dapr(self, render, validate, arguments):
        documents = render(*arguments).documents
        assert len(documents) > 20
        for document in documents:
            validate(json.dumps(document))

    @pytest.mark.parametrize("arguments", SHIPPED.values(), ids=SHIPPED.keys())
    def test_it_passes_helm_lint(self, helm, arguments):
        done = helm("lint", "--strict", CHART, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.parametrize("arguments", SHIPPED.values(), ids=SHIPPED.keys())
    def test_every_container_is_hardened(self, render, arguments):
        pods = render(*arguments).pods()
        writable = str(CHART / "values-dev.yaml") in arguments  # Skaffold replaces sources there
        for name, pod in pods.items():
            spec = pod["spec"]
            assert spec["securityContext"]["runAsNonRoot"] is True, name
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
            for container in [*spec["containers"], *spec.get("initContainers", [])]:
                context = container["securityContext"]
                assert writable or context["readOnlyRootFilesystem"] is True, container["name"]
                assert context["allowPrivilegeEscalation"] is False, container["name"]
                assert context["capabilities"]["drop"] == ["ALL"], container["name"]
                assert context["seccompProfile"] == {"type": "RuntimeDefault"}, container["name"]
                assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), container["name"]
                assert "memory" in container["resources"]["limits"], container["name"]
                if container["name"] != "volume-permissions":  # gives a folder of root away, so it must be root
                    assert context["runAsNonRoot"] is True
                    assert context["runAsUser"] > 0

    @pytest.mark.parametrize("arguments", SHIPPED.values(), ids=SHIPPED.keys())
    def test_only_sidecars_and_the_test_get_a_service_account_token(self, render, arguments):
        rendered = render(*arguments)
        for name, pod in rendered.pods().items():
            assert pod["spec"]["automountServiceAccountToken"] is (name == TEST), name
            tokens = {volume["name"] for volume in pod["spec"].get("volumes", []) if "projected" in volume}
            assert tokens == ({"kube-api-access"} if name in SIDECARS else set())
            for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
                assert not tokens & {mount["name"] for mount in container.get("volumeMounts", [])}, container["name"]
        for name in rendered.names("ServiceAccount"):
            assert rendered.get("ServiceAccount", name)["automountServiceAccountToken"] is False


class TestServices:
    def test_names_ports_and_labels_are_the_contract(self, default):
        assert default.names("Deployment") == set(SERVICES)
        assert default.names("Service") == {*SERVICES, "redis"}
        for name, port in zip(SERVICES, (8010, 8001, 8002), strict=True):
            service, pod = default.get("Service", name), default.pods()[name]
            assert [p["port"] for p in service["spec"]["ports"]] == [port]
            assert pod["spec"]["containers"][0]["ports"] == [{"name": "http", "containerPort": port}]
            assert environment(pod)["PORT"] == str(port)
            assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()

    @pytest.mark.parametrize("service", SERVICES)
    def test_every_setting_is_set_and_is_the_services_default(self, default, service, monkeypatch):
        settings = importlib.import_module(f"{service.replace('-', '_')}.settings").Settings
        by_default = settings().model_dump()
        env = environment(default.pods()[service])
        assert ("APP_API_TOKEN" in env) == (service in SIDECARS)
        env.pop("APP_API_TOKEN", None)
        # The sidecar's come from the injector.
        injected = {"host", "dapr_http_port", "dapr_api_token", "app_api_token"}
        assert {name.lower() for name in env} == by_default.keys() - injected
        for name, value in env.items():
            # What Kubernetes fills in has no value here.
            monkeypatch.setenv(name, by_default[name.lower()] if value is None else value)
        assert settings().model_dump() == by_default

    def test_an_actors_host_is_known_by_name_and_address(self, default):
        env = {item["name"]: item for item in default.pods()["chat-service"]["spec"]["containers"][0]["env"]}
        told = {name: env[name]["valueFrom"]["fieldRef"]["fieldPath"] for name in ("POD_NAME", "POD_IP")}
        assert told == {"POD_NAME": "metadata.name", "POD_IP": "status.podIP"}

    @pytest.mark.parametrize(
        ("setting", "variable"),
        [
            ("chatService.turn.queueLimit=1000", "TURN_QUEUE_LIMIT"),
            ("chatService.turn.openLimit=100000", "TURN_OPEN_LIMIT"),
            ("chatService.turn.whenBusy=interrupt", "TURN_WHEN_BUSY"),
            ("chatService.turn.resumeSeconds=0", "TURN_RESUME_SECONDS"),
            ("chatService.turn.keySeconds=2592000", "TURN_KEY_SECONDS"),
            ("chatService.retention.sessionSeconds=31536000", "SESSION_RETENTION_SECONDS"),
            ("model.contextTokens=10000000", "MODEL_CONTEXT_TOKENS"),
            ("model.tools=false", "MODEL_TOOLS"),
            ("model.onLength=refuse", "MODEL_ON_LENGTH"),
            ("model.onContentFilter=answer", "MODEL_ON_CONTENT_FILTER"),
            ("agentMemoryService.retention.transcriptSeconds=31536000", "TRANSCRIPT_RETENTION_SECONDS"),
        ],
    )
    def test_a_setting_is_what_its_value_says(self, render, tmp_path, setting, variable):
        # In a file as well: from there a large number would be written as 1e+07.
        path, _, told = setting.rpartition("=")
        content = told
        for name in reversed(path.split(".")):
            content = f"{{{name}: {content}}}"
        (tmp_path / "values.yaml").write_text(content)
        for arguments in (("--set", setting), ("--values", tmp_path / "values.yaml")):
            pods = render(*arguments).pods()
            seen = [
                environment(pods[service])[variable] for service in SERVICES if variable in environment(pods[service])
            ]
            assert seen == [told]

    @pytest.mark.parametrize(
        ("kind", "source"),
        [
            ("ConfigMap", {"configMap": {"name": "our-ca", "items": [{"key": "root.pem", "path": "ca.crt"}]}}),
            ("Secret", {"secret": {"secretName": "our-ca", "items": [{"key": "root.pem", "path": "ca.crt"}]}}),
        ],
    )
    def test_a_private_ca_is_mounted_where_the_services_look_for_it(self, render, kind, source):
        told = (f"model.ca.kind={kind}", "model.ca.name=our-ca", "model.ca.key=root.pem")
        pods = render(*(word for one in told for word in ("--set", one))).pods()
        for service in SIDECARS:
            spec = pods[service]["spec"]
            assert {"name": "model-ca"} | source in spec["volumes"]
            (mounted,) = (
                mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"] if mount["name"] == "model-ca"
            )
            assert environment(pods[service])["MODEL_CA_FILE"] == f"{mounted}/ca.crt"

    def test_without_one_nothing_is_mounted(self, default):
        for service in SIDECARS:
            assert "model-ca" not in str(default.pods()[service])
            assert environment(default.pods()[service])["MODEL_CA_FILE"] == ""

    def test_a_rollout_never_has_fewer_pods(self, default):
        for service in SERVICES:
            strategy = default.get("Deployment", service)["spec"]["strategy"]
            assert strategy["rollingUpdate"]["maxUnavailable"] == 0

    def test_probes_ask_the_health_routes(self, default):
        for service in SERVICES:
            container = default.pods()[service]["spec"]["containers"][0]
            asked = {probe: container[probe]["httpGet"]["path"] for probe in container if probe.endswith("Probe")}
            assert asked == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}

    def test_the_offline_model_is_there_only_while_it_answers(self, render):
        rendered = render("--set", "model.provider=gemini")
        assert "offline-model" not in {d["metadata"]["name"] for d in rendered.documents}

    def test_images_are_those_of_the_apps_version(self, default):
        version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
        for service in SERVICES:
            image = default.pods()[service]["spec"]["containers"][0]["image"]
            assert image == f"localhost/daca/{service}:{version}"

    def test_the_values_for_node_ports_open_them(self, render):
        rendered = render("--values", ROOT / "cluster" / "values-nodeports.yaml")
        ports = {name: rendered.get("Service", name)["spec"]["ports"][0].get("nodePort") for name in SIDECARS}
        assert ports == {"chat-service": 30010, "agent-memory-service": 30001}

    def test_cors_origins_are_a_json_list(self, render):
        pod = render("--set", "chatService.corsOrigins={https://a.example,https://b.example}").pods()["chat-service"]
        assert json.loads(environment(pod)["CORS_ORIGINS"]) == ["https://a.example", "https://b.example"]


class TestPlacementRelay:
    def test_it_is_beside_every_sidecar_which_knows_placement_by_it_alone(self, default):
        for name, pod in default.pods().items():
            relays = [one for one in pod["spec"].get("initContainers", []) if one["name"] == "placement-relay"]
            assert len(relays) == (name in SIDECARS)
            for relay in relays:
                listen, *_ = [word.removeprefix("--listen=") for word in relay["args"] if word.startswith("--listen=")]
                assert annotations(pod)["dapr.io/placement-host-address"] == listen
                assert listen.startswith("127.0.0.1:")
                assert relay["restartPolicy"] == "Always"  # a sidecar: it ends after the others

    def test_its_settings_are_what_its_values_say(self, render):
        told = ("placement=other.dapr.svc:50006", "connectTimeoutMs=250", "image.repository=here/relay", "image.tag=t")
        rendered = render(*(word for one in told for word in ("--set", f"placementRelay.{one}")))
        (relay,) = rendered.pods()["chat-service"]["spec"]["initContainers"]
        assert relay["image"] == "here/relay:t"
        assert {"--placement=other.dapr.svc:50006", "--connect-timeout-ms=250"} < set(relay["args"])

    def test_without_it_a_sidecar_finds_placement_as_dapr_does(self, render):
        for pod in render("--set", "placementRelay.enabled=false").pods().values():
            assert "initContainers" not in pod["spec"]
            assert "dapr.io/placement-host-address" not in pod["metadata"].get("annotations", {})

    @pytest.mark.parametrize("wrong", ["dapr-placement-server", "host:port", "http://host:50005", "::1:50005", ""])
    def test_an_address_of_another_form_is_refused(self, refusal, wrong):
        assert "/placementRelay/placement" in refusal("--set", f"placementRelay.placement={wrong}")


class TestSidecars:
    def test_only_pods_of_the_two_services_get_one(self, default):
        enabled = {
            name
            for name, pod in default.pods().items()
            if pod["metadata"].get("annotations", {}).get("dapr.io/enabled") == "true"
        }
        assert enabled == set(SIDECARS)

    def test_annotations_are_daprs_own(self, default, dapr_source):
        source = (dapr_source / "pkg" / "injector" / "annotations" / "annotations.go").read_text()
        known = set(re.findall(r'"(dapr\.io/[a-z0-9-]+)"', source))
        for service in SIDECARS:
            used = {name for name in annotations(default.pods()[service]) if name.startswith("dapr.io/")}
            assert used - known == set()

    def test_the_sidecar_and_its_service_share_a_token(self, default, render):
        def shared(pod):
            reference = next(e for e in pod["spec"]["containers"][0]["env"] if e["name"] == "APP_API_TOKEN")
            assert reference["valueFrom"]["secretKeyRef"]["key"] == "token"
            return annotations(pod)["dapr.io/app-token-secret"], reference["valueFrom"]["secretKeyRef"]["name"]

        assert len(default.get("Secret", "app-token")["data"]["token"]) > 32
        named = render("--set", "dapr.appToken.existingSecret.name=mine")
        assert "app-token" not in named.names("Secret")
        for service in SIDECARS:
            assert shared(default.pods()[service]) == ("app-token", "app-token")
            assert shared(named.pods()[service]) == ("mine", "mine")

    def test_the_token_volume_goes_to_the_sidecar(self, default):
        for service in SIDECARS:
            pod = default.pods()[service]
            volume = next(v for v in pod["spec"]["volumes"] if v["name"] == "kube-api-access")
            sources = [next(iter(source)) for source in volume["projected"]["sources"]]
            assert sources == ["serviceAccountToken", "configMap", "downwardAPI"]
            mount = annotations(pod)["dapr.io/volume-mounts"]
            assert mount == "kube-api-access:/var/run/secrets/kubernetes.io/serviceaccount"

    def test_rights_are_for_one_named_secret(self, render):
        rendered = render("--set", "model.existingSecret.name=my-key")
        for service in SIDECARS:
            assert rendered.get("Role", service)["rules"] == [
                {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["my-key"], "verbs": ["get"]}
            ]
        scope = rendered.get("Configuration", "daca")["spec"]["secrets"]["scopes"]
        assert scope == [{"storeName": "secretstore", "defaultAccess": "deny", "allowedSecrets": ["my-key"]}]

    def test_a_change_of_what_they_read_replaces_the_pods(self, default, render):
        before = annotations(default.pods()["chat-service"])
        same = annotations(render("--set", "chatService.logLevel=DEBUG").pods()["chat-service"])
        other = annotations(render("--set", "dapr.pubsub.concurrency=3").pods()["chat-service"])
        rotated = annotations(render("--set", "redis.auth.password=new").pods()["chat-service"])
        assert same["checksum/dapr"] == before["checksum/dapr"] != other["checksum/dapr"]
        assert rotated["checksum/redis-auth"] != before["checksum/redis-auth"]

    def test_a_change_of_any_dapr_resource_replaces_the_pods(self):
        (listed,) = re.findall(r"range list (.*) -}}", (CHART / "templates" / "_dapr.tpl").read_text())
        resources = {path.stem for path in (CHART / "templates" / "dapr").glob("*.yaml")}
        assert set(re.findall(r'"(\w+)"', listed)) == resources - {"app-token"}  # which is made once

    def test_limits_image_and_memory_come_from_values(self, render):
        told = annotations(
            render(
                "--set",
                "dapr.sidecarImage=example.com/daprd:1.18.3,chatService.sidecar.goMemLimit=1GiB,"
                "chatService.sidecar.resources.limits.cpu=2,chatService.sidecar.resources.limits.memory=2Gi",
            ).pods()["chat-service"]
        )
        assert told["dapr.io/sidecar-image"] == "example.com/daprd:1.18.3"
        assert told["dapr.io/env"] == "GOMEMLIMIT=1GiB"
        assert told["dapr.io/sidecar-cpu-limit"] == "2"
        assert told["dapr.io/sidecar-memory-limit"] == "2Gi"


class TestDapr:
    def test_components_are_scoped(self, default):
        scopes = {
            d["metadata"]["name"]: set(d["scopes"])
            for d in default.documents
            if d["kind"] in {"Component", "Subscription", "Resiliency"}
        }
        both = set(SIDECARS)
        assert scopes == {
            "statestore": both,
            "pubsub": both,
            "secretstore": both,
            "conversations": {"agent-memory-service"},
            "dead-letters": {"agent-memory-service"},
            "daca": both,
        }

    def test_redelivery_is_in_milliseconds(self, default):
        told = metadata_of(default.get("Component", "pubsub"))
        assert told["redeliverInterval"].isdigit()
        assert told["processingTimeout"].isdigit()

    def test_the_password_reaches_components_by_reference(self, default):
        for name in ("statestore", "pubsub"):
            component = default.get("Component", name)
            assert metadata_of(component)["redisPassword"] == {"name": "redis", "key": "redis-password"}
            assert component["auth"]["secretStore"] == "kubernetes"

    def test_an_external_redis_is_reached_as_it_is_told(self, render):
        rendered = render(
            "--set",
            f"{EXTERNAL},externalRedis.port=6380,externalRedis.username=daca,externalRedis.database=2,"
            "externalRedis.tls.enabled=true,externalRedis.existingSecret.name=mine,externalRedis.existingSecret.key=pw",
        )
        told = metadata_of(rendered.get("Component", "statestore"))
        assert told["redisHost"] == "redis.example.com:6380"
        assert (told["redisDB"], told["enableTLS"], told["redisUsername"]) == ("2", "true", "daca")
        assert told["redisPassword"] == {"name": "mine", "key": "pw"}
        assert "StatefulSet" not in {d["kind"] for d in rendered.documents}

    def test_what_is_dropped_has_a_topic_to_go_to(self, default):
        spec = default.get("Subscription", "conversations")["spec"]
        assert spec == {
            "pubsubname": "pubsub",
            "topic": "conversations",
            "routes": {"default": "/conversations"},
            "deadLetterTopic": "conversations-dead-letter",
        }

    def test_what_has_no_other_place_goes_to_the_service_and_nowhere_behind_it(self, default):
        spec = default.get("Subscription", "dead-letters")["spec"]
        assert spec == {
            "pubsubname": "pubsub",
            "topic": default.get("Subscription", "conversations")["spec"]["deadLetterTopic"],
            "routes": {"default": "/dead-letters"},
        }

    def test_an_event_is_tried_a_little_longer_than_until_it_is_given_to_another_pod(self, default):
        # Shorter, and Dapr acknowledges what it could neither deliver nor put among the dead letters.
        policy = default.get("Resiliency", "daca")["spec"]["policies"]["retries"]["event"]
        assert policy == {"policy": "constant", "duration": "1s", "maxRetries": 35}
        assert metadata_of(default.get("Component", "pubsub"))["processingTimeout"] == "30000"

    def test_a_pod_holds_few_events_that_wait_when_it_dies(self, render):
        told = metadata_of(render("--set", "dapr.pubsub.queueDepth=7").get("Component", "pubsub"))
        assert told["queueDepth"] == "7"

    def test_streams_are_bounded_by_length_or_by_age(self, render, default):
        by_length = metadata_of(default.get("Component", "pubsub"))
        by_age = metadata_of(render("--set", f"{EXTERNAL},dapr.pubsub.streamTTL=168h").get("Component", "pubsub"))
        assert (by_length["maxLenApprox"], by_length.get("streamTTL")) == ("100000", None)
        assert (by_age.get("maxLenApprox"), by_age["streamTTL"]) == (None, "168h")

    def test_every_targets_policy_is_defined(self, default):
        spec = default.get("Resiliency", "daca")["spec"]
        targets = spec["targets"]
        uses = [*targets["actors"].values(), *targets["apps"].values(), targets["components"]["pubsub"]["inbound"]]
        assert {use["retry"] for use in uses} <= spec["policies"]["retries"].keys()
        assert {use["timeout"] for use in uses if "timeout" in use} == spec["policies"]["timeouts"].keys()
        assert targets["actors"].keys() == {"UserSessionActor"}

    def test_calls_of_an_actor_have_no_timeout(self, default):
        # With one, Dapr 1.18 reads the answer of a call that it has cancelled: calls fail, and run twice.
        assert "timeout" not in default.get("Resiliency", "daca")["spec"]["targets"]["actors"]["UserSessionActor"]


class TestRedis:
    def password(self, rendered):
        return b64decode(rendered.get("Secret", "redis")["data"]["redis-password"]).decode()

    def test_the_image_is_the_official_one(self, default):
        image = default.pods()["redis"]["spec"]["containers"][0]["image"]
        assert image == f"docker.io/library/redis:{VERSIONS['REDIS_VERSION']}"

    def test_the_bare_nodes_image_is_the_one_that_it_builds(self, render):
        pod = render("--values", ROOT / "cluster" / "values-bare.yaml").pods()["redis"]
        assert pod["spec"]["containers"][0]["image"] == f"{images.REGISTRY}/redis:{VERSIONS['DEBIAN_REDIS_VERSION']}"

    def test_a_password_is_made_where_none_is_given(self, default, render_anew):
        assert re.fullmatch(r"[A-Za-z0-9]{32}", self.password(default))
        assert self.password(render_anew()) != self.password(default)

    def test_a_given_password_is_taken(self, render):
        assert self.password(render("--set", "redis.auth.password=pa$$ word")) == "pa$$ word"

    def test_a_made_password_does_not_replace_pods(self, default, render_anew):
        first, second = default.pods()["redis"], render_anew().pods()["redis"]
        assert annotations(first) == annotations(second)

    def test_an_existing_secret_is_used_and_none_made(self, render):
        rendered = render("--set", "redis.auth.existingSecret.name=mine,redis.auth.existingSecret.key=pw")
        assert "redis" not in rendered.names("Secret")
        wanted = {"name": "mine", "key": "pw"}
        env = rendered.pods()["redis"]["spec"]["containers"][0]["env"]
        assert [item["valueFrom"]["secretKeyRef"] for item in env] == [wanted]
        assert metadata_of(rendered.get("Component", "pubsub"))["redisPassword"] == wanted

    def test_the_password_is_in_the_secret_alone(self, render):
        rendered = render("--set", "redis.auth.password=find-me")
        holders = [d["kind"] for d in rendered.documents if "find-me" in json.dumps(d)]
        assert holders == []  # in the Secret it is base64
        assert self.password(rendered) == "find-me"

    def test_writes_reach_the_disk_by_default(self, default):
        config = default.get("ConfigMap", "redis")["data"]["redis.conf"].splitlines()
        assert {"appendonly yes", "appendfsync always", "maxmemory-policy noeviction"} <= set(config)
        claim = default.get("StatefulSet", "redis")["spec"]["volumeClaimTemplates"][0]
        assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]

    def trimmer(self, rendered):
        (container,) = [c for c in rendered.pods()["redis"]["spec"]["containers"] if c["name"] == "trim"]
        return container

    def test_streams_are_trimmed_beside_it_as_the_same_user(self, render, default):
        rendered = render("--set", "redis.trim.intervalSeconds=30,redis.auth.existingSecret.name=mine")
        server, trimmer = rendered.pods()["redis"]["spec"]["containers"][0], self.trimmer(rendered)
        for shared in ("image", "imagePullPolicy", "securityContext"):
            assert trimmer[shared] == server[shared]
        assert {"name": "TRIM_SECONDS", "value": "30"} in trimmer["env"]
        assert trimmer["env"][0] == server["env"][0]
        assert trimmer["volumeMounts"] == [{"name": "config", "mountPath": "/etc/redis", "readOnly": True}]
        files = default.get("ConfigMap", "redis")["data"]
        for name in ("start.sh", "trim.sh", "trim.lua"):
            assert files[name].strip() == (CHART / "files" / "redis" / name).read_text().strip()

    def test_the_streams_that_are_trimmed_are_the_topics(self, default):
        topics = {default.get("Subscription", name)["spec"]["topic"] for name in ("conversations", "dead-letters")}
        command = self.trimmer(default)["command"]
        assert command[:2] == ["sh", "/etc/redis/trim.sh"]
        assert set(command[2:]) == topics

    def test_without_trimming_there_is_nothing_of_it(self, render):
        rendered = render("--set", "redis.trim.enabled=false")
        assert [c["name"] for c in rendered.pods()["redis"]["spec"]["containers"]] == ["redis"]
        assert rendered.get("ConfigMap", "redis")["data"].keys() == {"redis.conf", "start.sh"}

    def test_root_does_nothing_but_give_the_folder_away(self, render):
        spec = render("--set", "redis.volumePermissions.enabled=true").pods()["redis"]["spec"]
        (container,) = spec["initContainers"]
        assert container["command"] == ["chown", "999:999", "/data"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}


class TestHelmTest:
    def test_it_runs_without_a_sidecar(self, default):
        pod = default.get("Pod", TEST)
        assert annotations(pod)["dapr.io/enabled"] == "false"
        assert annotations(pod)["helm.sh/hook"] == "test"
        assert annotations(pod)["helm.sh/hook-delete-policy"] == "before-hook-creation"
        assert pod["spec"]["restartPolicy"] == "Never"

    def test_its_pod_is_the_only_hook(self, default):
        # `helm test --logs` of Helm 3 takes every test hook for a pod, and of a pod it shows one container's log.
        hooks = [d for d in default.documents if "helm.sh/hook" in d["metadata"].get("annotations", {})]
        assert [(hook["kind"], len(hook["spec"]["containers"])) for hook in hooks] == [("Pod", 1)]
        assert "initContainers" not in hooks[0]["spec"]

    def test_it_reaches_the_services_where_they_are(self, render):
        rendered = render("--set", "chatService.service.port=80,agentMemoryService.service.port=81")
        told = environment(rendered.get("Pod", TEST))
        assert told["CHAT_URL"] == "http://chat-service:80"
        assert told["MEMORY_URL"] == "http://agent-memory-service:81"

    def test_its_scripts_are_the_files_and_all_are_run(self, default):
        scripts = default.get("ConfigMap", "conversation-test-script")["data"]
        assert scripts.keys() == {"sidecars.py", "conversation.py"}
        command = default.get("Pod", TEST)["spec"]["containers"][0]["command"][-1]
        for name, script in scripts.items():
            assert script.strip() == (CHART / "files" / name).read_text().strip()
            assert f"/test/{name}" in command

    def test_it_may_list_the_pods_of_its_namespace_and_nothing_else(self, default):
        assert default.get("Pod", TEST)["spec"]["serviceAccountName"] == TEST
        assert default.get("Role", TEST)["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
        binding = default.get("RoleBinding", TEST)
        assert binding["roleRef"]["name"] == TEST
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": TEST, "namespace": "daca"}]


class TestNotes:
    @pytest.fixture
    def notes(self, render, tmp_path: Path):
        """NOTES.txt as `helm install` prints it."""
        return lambda *arguments: notes_of(CHART, render, tmp_path, *arguments)

    def test_they_say_that_the_offline_model_answers_and_how_to_switch(self, notes):
        text = notes()
        assert "The OFFLINE model answers" in text
        assert "--reuse-values --set model.provider=gemini" in text
        assert "helm test daca -n daca --logs" in text

    def test_they_name_the_provider_and_where_its_key_is(self, notes):
        text = notes("--set", "model.provider=gemini,model.name=gemini-flash-latest")
        assert "Provider gemini answers, model gemini-flash-latest" in text
        assert "k8s-secrets/create-model-key.sh -n daca --name gemini-api-key" in text
        assert "OFFLINE" not in text

    def test_they_reach_the_service_as_it_is_exposed(self, notes):
        assert "kubectl port-forward -n daca service/chat-service 8010:8010" in notes()
        exposed = notes("--set", "chatService.service.type=NodePort,chatService.service.nodePort=30010")
        for address in ("localhost:30010 ", "$(minikube ip):30010 ", "$(kubectl get nodes"):
            assert f"CHAT=http://{address}" in exposed
        assert "port-forward" not in exposed

    def test_they_list_pods_without_a_sidecar_and_say_the_mend(self, notes):
        text = notes()
        assert "kubectl get pods -n daca -l 'app.kubernetes.io/name in (chat-service,agent-memory-service)" in text
        assert "kubectl rollout restart deployment -n daca chat-service agent-memory-service" in text
        assert "WITHOUT A DAPR SIDECAR" not in text  # no cluster is asked here
