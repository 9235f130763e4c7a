"""docs/tutorial.md, typed as it stands: its commands in one shell, its outputs beside what they print."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from cluster.client import CHAT, MEMORY
from cluster.versions import ROOT

pytestmark = pytest.mark.e2e

PAGE = ROOT / "docs" / "tutorial.md"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

ADDRESSES = {
    "bare": "CHAT=http://198.18.0.1:30010",
    "kind": "CHAT=http://localhost:30010",
    "proxied": "kubectl proxy",
    "local": "CHAT=http://localhost:8010 MEMORY=http://localhost:8001 DAPR=http://localhost:3500",
}
"""How the block begins that says where the services are, by where they are."""
NOT_RUN = {
    "make up": "these tests run on what it made",
    ADDRESSES["local"]: "tests/e2e/test_local.py is about `make local`",
}
LOOKS = re.compile(r"(curl -sS \$\w+/|actor GetConversationHistory)[^\n]*\n")
"""A block that changes nothing. What it shows may come a moment later, so it may be looked at again."""
LATEST_SECONDS = 120
"""An event that a pod took before it was killed is given to another after half a minute."""

VOLATILE: dict[str, str | Callable[[re.Match], str]] = {
    r"[ ─]+": " ",
    r"[ \r]+$": "",
    r"\d{4}-\d\d-\d\dT[\d:.]+Z": "<time>",
    r"\b[0-9a-f]{32}\b": "<id>",
    r"\b[0-9a-f]{16}\b": "<token>",
    r"\b(chat-service|agent-memory-service)-[a-z0-9]+-[a-z0-9]{5}\b": r"\1-<pod>",
    r"\b\d{6}\b": "<now>",
    r"\d+(\.\d+){3}:\d+": "<address>",
    r"Message [1-5]": "Message <n>",
    r'Recent topics: [^".]*': lambda found: " ".join(sorted(re.split("[:;] ", found[0]))),
    r'"rev": \d+': '"rev": <n>',
    r'"count": \d+': '"count": <n>',
    r"UserSessionActor \d+": "UserSessionActor <n>",
    r"written \d+ times": "written <n> times",
}
"""What differs from run to run -> what it is compared as (topics: in any order), one rule after the other."""


class Block(NamedTuple):
    """A command of the page, and the output that it shows."""

    command: str
    shown: str | None


def blocks():
    """The commands in their order; an output belongs to the command before it."""
    found = []
    for language, text in FENCED.findall(PAGE.read_text()):
        if language == "bash":
            found.append(Block(text, None))
        else:
            assert language in {"", "json"}
            found[-1] = Block(found[-1].command, text)
    return found


class Shell:
    """One bash, as a reader has it open, that ends at the first command that fails."""

    def __init__(self, errors):
        self._errors = errors
        self._process = subprocess.Popen(
            ["bash", "-eu"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )

    def run(self, command):
        """What a block of commands prints; errors are kept for the case that it fails."""
        end = f"end of block {time.monotonic_ns()}"
        self._process.stdin.write(f"{command}\nprintf '\\n%s\\n' '{end}'\n")
        self._process.stdin.flush()
        printed = []
        while (line := self._process.stdout.readline()) != f"{end}\n":
            assert line, f"{command}\n{''.join(printed)}{self._said()}"
            printed.append(line)
        return "".join(printed)

    def close(self):
        """Ends the shell and what it has started."""
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.communicate()

    def _said(self):
        self._errors.seek(0)
        return self._errors.read()


@pytest.fixture
def shell(tmp_path):
    with (tmp_path / "errors").open("w+") as errors:
        shell = Shell(errors)
        yield shell
        shell.close()


def comparable(text):
    """A text without what differs from run to run."""
    for pattern, stand_in in VOLATILE.items():
        text = re.sub(pattern, stand_in, text, flags=re.MULTILINE)
    return text.strip()


def fits(printed, shown):
    """Whether a command printed what the page shows; a line ``...`` of the page stands for any lines."""
    parts = [re.escape(comparable(part)) for part in re.split(r"^\.\.\.\n", shown, flags=re.MULTILINE)]
    return re.fullmatch(r"[\s\S]*".join(parts), comparable(printed)) is not None


def place(cluster):
    """Which of the page's addresses are this cluster's."""
    return cluster.kube.target.cluster if cluster.kube.target.cluster in ADDRESSES else "proxied"


def test_every_output_of_the_page_would_be_noticed_if_it_were_another():
    for block in blocks():
        if block.shown is not None:
            assert fits(block.shown, block.shown), block.command
            assert not fits(block.shown + "more\n", block.shown) or block.shown.endswith("...\n"), block.command
            assert not fits("", block.shown), block.command


def test_the_page_can_be_typed_from_top_to_bottom(cluster, shell):
    where = place(cluster)
    others = {begin for name, begin in ADDRESSES.items() if name != where}
    left_out = set(NOT_RUN) | others
    found = set()
    for block in blocks():
        if begins := {begin for begin in left_out if block.command.startswith(begin)}:
            found |= begins
            continue
        looks = LOOKS.fullmatch(block.command)
        printed = shell.run(f"{block.command.rstrip()} || true" if looks else block.command)
        if block.shown is None:
            continue
        end = time.monotonic() + LATEST_SECONDS
        while looks and not fits(printed, block.shown) and time.monotonic() < end:
            printed = shell.run(f"{block.command.rstrip()} || true")
        assert fits(printed, block.shown), f"{block.command}\nprinted:\n{printed}\nthe page shows:\n{block.shown}"
    assert found == left_out
    cluster.settle()
    assert len(cluster.pods(CHAT)) >= 2
    assert len(cluster.pods(MEMORY)) >= 2
