"""What the README tells a newcomer to type."""

import re
import subprocess

import pytest

from cluster.client import CHAT, MEMORY
from cluster.versions import ROOT

pytestmark = pytest.mark.e2e

README = (ROOT / "README.md").read_text()
COMMANDS = set(re.findall(r"`(make [a-z0-9]+[^`]*)`", README)) | set(re.findall(r"^(make \S+)", README, re.MULTILINE))


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
        "make up CLUSTER=current IMAGE_REGISTRY=ghcr.io/you",  # tests/test_cluster_commands.py, up to the push
        "make up MODEL=gemini",
    }
    assert by_ci | here <= COMMANDS
    assert COMMANDS - by_ci - here - elsewhere == set()


def test_the_curl_lines_hold_the_tutorials_conversation(cluster):
    (lines,) = [block for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) if "curl" in block]
    addresses, calls = lines.split("\n", 1)
    assert addresses == "CHAT=http://198.18.0.1:30010 MEMORY=http://198.18.0.1:30001"
    if cluster.kube.target.cluster != "bare":
        addresses = f"CHAT={cluster.reach.url(CHAT)} MEMORY={cluster.reach.url(MEMORY)}"
    calls = calls.replace("curl ", "curl --no-progress-meter --fail-with-body --write-out '\\n' ")
    initialised, first, second = run(f"{addresses}\n{calls}").strip().split("\n")
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
