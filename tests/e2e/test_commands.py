"""What the README tells a newcomer to type."""

import re
import subprocess

import pytest

from cluster.client import CHAT, MEMORY
from cluster.versions import ROOT

pytestmark = pytest.mark.e2e

README = (ROOT / "README.md").read_text()
COMMANDS = set(re.findall(r"`((?:make|skaffold) [a-z0-9]+[^`]*)`", README))
COMMANDS |= set(re.findall(r"^(?:\w+=\S+ )?(make [^#\n]*\w)", README, re.MULTILINE))


def run(command, *, said=""):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=ROOT, input=said, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_make_command_of_the_readme_is_tried_somewhere():
    by_ci = {"make up", "make test", "make check", "make e2e", "make down"}
    here = {"make chat", "make inspect USER=junaid", "make status"}
    elsewhere = {
        "make up CLUSTER=kind DRY_RUN=1": "test_engine_clusters.py",
        "make up CLUSTER=minikube": "test_engine_clusters.py",
        "make up CLUSTER=current IMAGE_REGISTRY=ghcr.io/you": "test_cluster_commands.py",
        "make up MODEL=gemini": "test_cluster_commands.py",
        "make up NODES=2": "e2e/test_nodes.py",
        "make bench": "e2e/test_bench.py",
        "make load": "e2e/test_load_scenarios.py",
        "make local": "e2e/test_local.py",
        "skaffold dev": "e2e/test_skaffold.py",
    }
    assert by_ci | here | set(elsewhere) == COMMANDS
    assert all((ROOT / "tests" / file).is_file() for file in elsewhere.values())


ON_KIND = "kind, by `make up`"


def addresses(name):
    """The line that sets ``CHAT`` and ``MEMORY`` as the README's table says."""
    found = re.search(rf"^\| {name} \| (\S+) \| (\S+) \|$", README, re.MULTILINE)
    return f"CHAT={found[1]} MEMORY={found[2]}"


def test_the_curl_lines_hold_the_tutorials_conversation(cluster):
    (lines,) = [block for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) if "curl" in block]
    first_line, calls = lines.split("\n", 1)
    assert first_line.partition("  #")[0] == addresses(ON_KIND)
    calls = calls.replace("curl ", "curl --no-progress-meter --fail-with-body --write-out '\\n' ")
    known = {"bare": addresses("bare node"), "kind": addresses(ON_KIND)}
    forwarded = f"CHAT={cluster.reach.url(CHAT)} MEMORY={cluster.reach.url(MEMORY)}"
    here = known.get(cluster.kube.target.cluster, forwarded)
    initialised, first, second = run(f"{here}\n{calls}").strip().split("\n")
    assert '"status":"success"' in initialised
    assert "Junaid" in first
    assert "Hi there" in second


def test_a_chat_in_the_terminal_knows_what_was_said(cluster, user_id):
    said = run(
        f"make chat USER={user_id}", said="Hi there\nWhat did I say before?\n/history\n/nonsense\n/clear\n/quit\n"
    )
    assert "Hi there" in said.split("chat>")[2]
    assert "/nonsense is no command" in said


def test_inspect_shows_where_an_actor_lives_and_what_it_holds(cluster, user_id):
    cluster.client.send(user_id, "Hi there")
    shown = run(f"make inspect USER={user_id}")
    assert any(pod.metadata.name in shown for pod in cluster.pods(CHAT))
    assert f"history-{user_id}" in shown
    assert '"turn_no": 1' in shown


def test_status_names_every_part_and_its_address(cluster):
    shown = run("make status")
    for part in ("chat-service", "agent-memory-service", "offline-model", "redis"):
        assert part in shown
