"""The README's section "With Helm": its commands, run with stand-ins for the tools, fit each other and the defaults."""

import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise

import pytest
import yaml
from support.charts import DAPR_APIS, ROOT, Rendered

from cluster.deploy import DAPR_NAMESPACE, DAPR_RELEASE, DAPR_REPOSITORY, RELEASE
from cluster.target import DEFAULT_NAMESPACE
from cluster.versions import VERSIONS

TOOLS = ("docker", "kind", "minikube", "helm", "kubectl", "curl")
REDIS = f"docker.io/library/redis:{VERSIONS['REDIS_VERSION']}"


def sections(text: str, level: int) -> dict[str, str]:
    """What stands below each heading of that level, by heading."""
    headed = re.split(rf"^{'#' * level} (.+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(headed[::2], headed[1::2], strict=True))


WAYS = sections(sections((ROOT / "README.md").read_text(), 2)["With Helm"], 3)


@pytest.fixture(params=["kind", "minikube"])
def way(request):
    return request.param


@pytest.fixture
def calls(way, tmp_path) -> list[list[str]]:
    """The tools that the way's commands call, in order, each with its arguments; the shell is a real one."""
    record = tmp_path / "calls"
    for tool in TOOLS:
        stand_in = tmp_path / "bin" / tool
        stand_in.parent.mkdir(exist_ok=True)
        stand_in.write_text(f"#!/bin/bash\nprintf '%s\\x1f' {tool} \"$@\" >> {record}\necho >> {record}\n")
        stand_in.chmod(0o755)
    commands = "".join(re.findall(r"^```bash\n(.*?)^```", WAYS[way], re.MULTILINE | re.DOTALL))
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", commands],
        cwd=ROOT,
        env={"PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split("\x1f")[:-1] for line in record.read_text().splitlines()]


def of(calls: list[list[str]], *start: str) -> list[list[str]]:
    """The arguments behind ``start``, of every call that starts so."""
    return [call[len(start) :] for call in calls if call[: len(start)] == list(start)]


def option(arguments: list[str], *names: str) -> str | None:
    """The value of an option, under any of its names."""
    values = [value for name, value in pairwise(arguments) if name in names]
    assert len(values) <= 1, names
    return values[0] if values else None


def loads(calls: list[list[str]]) -> list[list[str]]:
    """The arguments of the commands that put an image on the cluster's node."""
    return of(calls, "kind", "load", "docker-image") + of(calls, "minikube", "image", "load")


def install(calls: list[list[str]], release: str) -> list[str]:
    """The arguments that follow `helm upgrade --install <release>`."""
    (arguments,) = of(calls, "helm", "upgrade", "--install", release)
    return arguments


def files(calls: list[list[str]]) -> Iterator[str]:
    for call in calls:
        if file := option(call, "-f", "--file", "--config", "--values"):
            yield file
    for build in of(calls, "docker", "build"):
        yield build[-1]
    yield install(calls, RELEASE)[0]


def all_containers(spec):
    return [*spec["containers"], *spec.get("initContainers", [])]


def test_images_are_built_under_the_names_that_the_chart_asks_for(calls, default):
    built = [option(build, "-t", "--tag") for build in of(calls, "docker", "build")]
    asked = {c["image"] for pod in default.pods().values() for c in all_containers(pod["spec"])}
    assert len(built) == len(set(built))
    assert asked == {*built, REDIS}


def test_each_image_is_built_from_its_own_dockerfile(calls):
    for build in of(calls, "docker", "build"):
        service = re.fullmatch(r"localhost/daca/(.+):.+", option(build, "-t", "--tag") or "")[1]
        assert option(build, "-f", "--file") == f"images/{service}/Dockerfile"


def test_what_is_built_is_loaded_into_the_cluster_that_was_made(way, calls):
    built = [option(build, "-t", "--tag") for build in of(calls, "docker", "build")]
    assert [load[0] for load in loads(calls)] == built
    if way == "kind":
        (create,) = of(calls, "kind", "create", "cluster")
        made = option(create, "--name") or yaml.safe_load((ROOT / option(create, "--config")).read_text())["name"]
        assert {option(load, "--name") for load in loads(calls)} == {made}
    else:
        (start,) = of(calls, "minikube", "start")
        assert {option(load, "-p", "--profile") for load in loads(calls)} == {option(start, "-p", "--profile")}


def test_every_file_that_they_name_exists(calls):
    named = list(files(calls))
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_dapr_is_the_one_that_is_tested(calls):
    arguments = install(calls, DAPR_RELEASE)
    assert arguments[0] == "dapr"
    assert option(arguments, "--repo") == DAPR_REPOSITORY
    assert option(arguments, "--version") == VERSIONS["DAPR_VERSION"]
    assert option(arguments, "-n", "--namespace") == DAPR_NAMESPACE


def test_the_release_and_its_namespace_are_the_defaults(calls):
    assert option(install(calls, RELEASE), "-n", "--namespace") == DEFAULT_NAMESPACE
    ((release, *arguments),) = of(calls, "helm", "test")
    assert release == RELEASE
    assert option(arguments, "-n", "--namespace") == DEFAULT_NAMESPACE


def test_each_step_follows_what_it_needs(way, calls):
    makes, loads = {"kind": ("kind create", "kind load"), "minikube": ("minikube start", "minikube image")}[way]
    installs = [f"helm upgrade --install {release}" for release in (DAPR_RELEASE, RELEASE)]
    steps = [" ".join(call[:4] if call[:2] == ["helm", "upgrade"] else call[:2]) for call in calls]
    in_order = [makes, "docker build", loads, *installs, "helm test"]
    assert list(dict.fromkeys(reversed(steps))) == in_order[::-1]


def test_helm_takes_the_very_arguments(calls, helm, default):
    done = helm("template", RELEASE, *install(calls, RELEASE), *DAPR_APIS)
    assert done.returncode == 0, done.stderr
    assert Rendered(done.stdout).names("Deployment") == default.names("Deployment")


def test_dapr_takes_the_very_values(calls, helm, dapr_source):
    values = option(install(calls, DAPR_RELEASE), "-f", "--values")
    done = helm("template", DAPR_RELEASE, dapr_source / "charts" / "dapr", "--values", values)
    assert done.returncode == 0, done.stderr


def test_a_cluster_without_dapr_is_told_the_same_command(calls, helm):
    refused = helm("template", RELEASE, *install(calls, RELEASE)).stderr.replace("\\\n", "")
    (told,) = re.findall(r"^ *helm upgrade --install dapr (.*)$", refused, re.MULTILINE)
    assert told.split() == install(calls, DAPR_RELEASE)
