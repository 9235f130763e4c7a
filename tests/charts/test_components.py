"""components/ is charts/daca's Dapr without Kubernetes: the same, but for where Redis and the secrets are."""

import json
import subprocess

import pytest
import yaml
from support.charts import ROOT

COMPONENTS = ROOT / "components"
# How Redis is reached differs from place to place.
REDIS = {"redisHost", "redisPassword", "redisUsername", "redisDB", "enableTLS", "insecureSkipTLSVerify"}


def local(name):
    return yaml.safe_load((COMPONENTS / f"{name}.yaml").read_text())


@pytest.mark.parametrize(
    ("file", "kind", "name"),
    [
        ("subscription", "Subscription", "conversations"),
        ("deadletters", "Subscription", "dead-letters"),
        ("configuration", "Configuration", "daca"),
        ("resiliency", "Resiliency", "daca"),
    ],
)
def test_it_is_the_charts(default, file, kind, name):
    ours, chart = local(file), default.get(kind, name)
    assert (ours["apiVersion"], ours["kind"], ours["metadata"]["name"]) == (chart["apiVersion"], kind, name)
    assert ours["spec"] == chart["spec"]
    assert ours.get("scopes") == chart.get("scopes")


@pytest.mark.parametrize("name", ["statestore", "pubsub"])
def test_a_component_is_the_charts_but_for_its_redis(default, name):
    ours, chart = local(name), default.get("Component", name)

    def settings(component):
        return {item["name"]: item["value"] for item in component["spec"]["metadata"] if item["name"] not in REDIS}

    assert settings(ours) == settings(chart)
    assert ours["scopes"] == chart["scopes"]
    assert {**ours["spec"], "metadata": None} == {**chart["spec"], "metadata": None}


def test_the_secret_store_is_a_file_of_the_same_name(default):
    ours, chart = local("secretstore"), default.get("Component", "secretstore")
    assert ours["metadata"]["name"] == chart["metadata"]["name"]
    assert ours["scopes"] == chart["scopes"]
    assert ours["spec"]["type"] == "secretstores.local.file"
    assert ours["spec"]["metadata"] == [{"name": "secretsFile", "value": "components/secrets.json"}]


def test_there_is_nothing_more_than_the_chart_has(default):
    files = {path.stem for path in COMPONENTS.glob("*.yaml")} - {"dapr"}
    assert files == {"configuration", "deadletters", "resiliency", "subscription"} | default.names("Component")


def test_secrets_have_an_example_and_stay_out_of_git():
    assert json.loads((COMPONENTS / "secrets.json.example").read_text()).keys() == {"gemini-api-key"}
    subprocess.run(["git", "-C", ROOT, "check-ignore", "--quiet", "components/secrets.json"], check=True)


def test_the_run_file_starts_what_the_chart_deploys(default):
    run_file = local("dapr")
    apps = {app["appID"]: app for app in run_file["apps"]}
    assert apps.keys() == default.names("Deployment")
    for name, app in apps.items():
        container = default.pods()[name]["spec"]["containers"][0]
        assert app["appPort"] == container["ports"][0]["containerPort"]
        assert app["env"]["PORT"] == str(app["appPort"])
        # A sidecar looks for its secrets below the folder it runs in.
        assert (COMPONENTS / app["appDirPath"] / "components").resolve() == COMPONENTS
        assert (ROOT / "images" / name / "src" / app["command"][-1] / "__main__.py").is_file()


def test_the_run_file_asks_for_health_as_the_chart_does(default):
    common = local("dapr")["common"]
    told = default.pods()["chat-service"]["metadata"]["annotations"]
    assert common["enableAppHealthCheck"] is True
    assert common["appHealthCheckPath"] == told["dapr.io/app-health-check-path"]
    assert str(common["appHealthProbeInterval"]) == told["dapr.io/app-health-probe-interval"]
    assert str(common["appHealthProbeTimeout"]) == told["dapr.io/app-health-probe-timeout"]
    assert str(common["appHealthThreshold"]) == told["dapr.io/app-health-threshold"]
    assert common["maxBodySize"] == told["dapr.io/max-body-size"]
