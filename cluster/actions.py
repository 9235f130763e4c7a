"""Commands as data: `up` and `down` run them, `--dry-run` prints them."""

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster import binaries
from cluster.shell import run
from cluster.steps import step
from cluster.versions import ROOT


@dataclass(frozen=True)
class Action:
    """One command, and the state that it brings about."""

    state: str
    command: tuple[str | Path, ...]
    """A tool by its name, and its arguments. Files of the checkout are paths."""
    env: Mapping[str, str] = field(default_factory=dict)
    """What the tool finds in its environment besides what is there."""

    def __str__(self) -> str:
        """The command as one types it in the checkout."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.env.items()]
        return " ".join([*settings, shlex.join(_typed(part) for part in self.command)])

    def take(self) -> str:
        """Runs the command as a step; its output.

        Raises:
            CommandError: it failed, or there is no such tool.
        """
        tool, *arguments = self.command
        with step(self.state):
            return run([binaries.program(str(tool)), *arguments], env={**os.environ, **self.env})


def take(actions: Iterable[Action]) -> None:
    """Takes one action after the other; when one fails, the rest is not tried."""
    for action in actions:
        action.take()


def _typed(part: str | Path) -> str:
    return str(part.relative_to(ROOT)) if isinstance(part, Path) and part.is_relative_to(ROOT) else str(part)
