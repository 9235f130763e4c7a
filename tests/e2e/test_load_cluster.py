"""charts/load-tests and `make load`: runs in the cluster end by themselves, and their files arrive."""

import base64
import io
import json
import os
import shutil
import subprocess
import tarfile
from xml.etree import ElementTree

import pytest

from cluster import load
from cluster.client import CHAT
from cluster.versions import ROOT

# The first of them builds the image.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

FILES = {"report.html", "report.json", "report.png", "junit.xml"}
BOTH = "Conversation HotActors"
"""A class over HTTP, and one through the sidecar."""
OURS = "app.kubernetes.io/instance=load-tests"
# As the kernel does when memory is used up.
KILLED = """
import os
from pathlib import Path
Path("/results/early.txt").write_text("early")
(locust,) = Path("/proc/1/task/1/children").read_text().split()
os.kill(int(locust), 9)
"""


@pytest.fixture(autouse=True)
def nothing_left(cluster):
    """No test leaves a pod or a release behind."""
    yield
    cluster.kube.target.kubectl("delete", "job", "-n", cluster.namespace, "-l", OURS, "--timeout", "150s")
    cluster.helm("uninstall", "load-tests", "--ignore-not-found")


def begin(*settings):
    """Types `make load`, with lines as they come."""
    return subprocess.Popen(
        ["make", "load", *settings], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )


def end(process):
    """All that it says until its end."""
    said, _ = process.communicate()
    return said


def folder_of(said):
    """The folder that the files are in, as the command says it."""
    (line,) = [line for line in said.splitlines() if "] report: " in line]
    return ROOT / line.partition("] report: ")[2].removesuffix("/report.html")


def pods(cluster, more=""):
    return cluster.kube.pods(cluster.namespace, OURS + more)


def locust(pod):
    """The state of the container that Locust runs in."""
    statuses = pod.status.container_statuses or []
    return next((status.state for status in statuses if status.name == "locust"), None)


def test_a_distributed_run_ends_by_itself_and_its_files_arrive(cluster):
    process = begin("SHAPE=constant", "USERS=6", "RUN_TIME=6s", f"CLASSES={BOTH}", "LOAD_OPTIONS=--max-error-rate 0.5")
    said = end(process)
    assert process.returncode == 0, said
    folder = folder_of(said)
    assert {path.name for path in folder.iterdir()} == FILES
    report = json.loads((folder / "report.json").read_text())
    names = {second["name"] for second in report["seconds"] if second["answered"] > second["failed"]}
    assert any(name.startswith("turn") for name in names)
    assert any(not name.startswith(("turn", "retry")) for name in names)
    assert len({sample["process"] for sample in report["generator"]} - {"master"}) == 2
    assert report["placement"]
    assert ElementTree.parse(folder / "junit.xml").getroot().tag == "testsuites"
    assert pods(cluster) == []
    shutil.rmtree(folder)


def test_a_run_that_misses_its_thresholds_fails_with_a_line_for_each():
    settings = {"SHAPE": "constant", "USERS": "2", "RUN_TIME": "5", "WORKERS": "1", "CLASSES": "Conversation"}
    settings["LOAD_OPTIONS"] = "--max-p95 0.001 --min-rate 100000 --max-error-rate 1"
    done = subprocess.run(
        [ROOT / ".venv" / "bin" / "python", "-m", "cluster", "load"],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    for option in ("--max-p95", "--min-rate"):
        assert len([line for line in failed if option in line]) == 1, failed
    assert not any("--max-error-rate" in line for line in failed)
    assert done.stderr == "error: the run failed with exit code 1; above is why\n"
    folder = folder_of(done.stdout)
    assert {path.name for path in folder.iterdir()} == FILES
    shutil.rmtree(folder)


def test_without_its_master_a_run_is_over_and_no_pod_stays(cluster):
    process = begin("SHAPE=constant", "USERS=2", "RUN_TIME=120s", "CLASSES=Conversation")
    said = ""
    while "All users spawned" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    (master,) = pods(cluster, ",app.kubernetes.io/component=master")
    cluster.kube.core.delete_namespaced_pod(master.metadata.name, cluster.namespace, grace_period_seconds=0)
    said = end(process)
    assert process.returncode != 0
    assert "error: the master's pod is gone: the run was ended" in said
    assert pods(cluster) == []


def test_what_happens_on_a_node_takes_no_pod_away_and_fails_no_turn(cluster):
    """A container is killed, another is frozen; each from a pod on its node that is gone afterwards."""
    before = restarts(cluster)
    process = begin("SCENARIO=faults", "USERS=5", "LOAD_OPTIONS=--faults chat-app-killed,redis-hangs --retries 10")
    said = end(process)
    assert process.returncode == 0, said
    after = restarts(cluster)
    assert after.keys() == before.keys()
    assert sorted(after[pod] - before[pod] for pod in after) == [0, 1]
    assert pods(cluster) == []
    shutil.rmtree(folder_of(said))


def restarts(cluster):
    """Pod -> how often the containers of chat pods were started again."""
    return {
        pod.metadata.name: sum(status.restart_count for status in pod.status.container_statuses)
        for pod in cluster.pods(CHAT)
    }


def test_a_wrong_namespace_is_one_line():
    process = begin("NAMESPACE=nowhere")
    said = end(process).splitlines()
    assert process.returncode != 0
    assert [line for line in said if line.startswith("error: ")] == [
        "error: there is no namespace nowhere: NAMESPACE= names that of the release under load"
    ]
    assert len(said) == 3  # what it is about, the error, and make's own line


def test_jobs_complete_with_their_sidecars_and_results_outlive_a_master_that_the_kernel_kills(cluster):
    references = load._images(cluster.kube.target, os.environ.get("IMAGE_REGISTRY", ""))
    install = ["upgrade", "--install", "load-tests", load.CHART]
    for image, value in (("load-tests", "image"), ("placement-relay", "placementRelay.image")):
        repository, _, tag = references[image].rpartition(":")
        install += ["--set-string", f"{value}.repository={repository},{value}.tag={tag}"]
    install += ["--set", f"run.users=2,run.userClasses={{{BOTH.replace(' ', ',')}}}"]

    cluster.helm(*install, "--set", "run.timeSeconds=120")
    (master,) = cluster.wait_for(lambda: running(cluster), 60)
    kubectl, namespace = cluster.kube.target.kubectl_command, cluster.namespace
    kill = kubectl("exec", "-n", namespace, master.metadata.name, "-c", "locust", "--", "python3", "-c", KILLED)
    subprocess.run(kill, env=cluster.kube.target.env(), capture_output=True, check=False)  # may go with its container
    (master,) = cluster.wait_for(lambda: [pod for pod in of_run(cluster, 1, "master") if pod.status.phase == "Failed"])
    assert locust(master).terminated.exit_code == 137
    assert unpacked(cluster, master)["early.txt"] == b"early"

    # The next revision is the next run, and ends the one before.
    cluster.helm(*install, "--set", "run.timeSeconds=5")
    ended = cluster.wait_for(lambda: completed(cluster), 90)
    assert {pod.metadata.labels["app.kubernetes.io/component"] for pod in ended} == {"master", "worker"}
    for pod in ended:
        containers = {
            status.name: status.state.terminated
            for status in [*pod.status.container_statuses, *pod.status.init_container_statuses]
        }
        wanted = {"locust", "daprd", "placement-relay"} | ({"results"} if "master" in pod.metadata.name else set())
        assert containers.keys() == wanted
        assert all(containers.values()), pod.metadata.name
    (master,) = of_run(cluster, 2, "master")
    files = unpacked(cluster, master)
    assert files.keys() == FILES
    assert json.loads(files["report.json"])["seconds"]
    cluster.wait_for(lambda: not of_run(cluster, 1), 60)  # people who chatted were let finish


def of_run(cluster, revision, component=""):
    """The pods of one run, or of a part of it."""
    return pods(
        cluster,
        f",load-tests/run={revision}" + (f",app.kubernetes.io/component={component}" if component else ""),
    )


def running(cluster):
    """The master, once Locust runs in it and in its workers."""
    states = [locust(pod) for pod in of_run(cluster, 1)]
    ready = len(states) == 3 and all(state and state.running for state in states)
    return of_run(cluster, 1, "master") if ready else []


def completed(cluster):
    """The pods of the second run, once all of them have; one that fails is told at once."""
    found = of_run(cluster, 2)
    assert not [pod.metadata.name for pod in found if pod.status.phase == "Failed"]
    return found if len(found) == 3 and all(pod.status.phase == "Succeeded" for pod in found) else []


def unpacked(cluster, master):
    """What the README's command gives: file -> content."""
    logged = cluster.kube.target.kubectl(
        "logs", "-n", cluster.namespace, f"pod/{master.metadata.name}", "-c", "results"
    )
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(logged)), mode="r:gz") as archive:
        return {item.name: archive.extractfile(item).read() for item in archive if item.isfile()}
