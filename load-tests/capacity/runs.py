"""The measured runs that are kept in the repository, as `make bench-capacity` writes them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from bench.systems import CLUSTER

from capacity import actors, rounds, users
from cluster.errors import CommandError

RUNS: Final = Path(__file__).with_name("runs")
DISTURBED: Final = 0.3
"""Cores that were busy with something else: a step with more is left out (docs/benchmarks.md)."""

_PODS: Final = re.compile(rf"{CLUSTER}, (\d+) pods?")


@dataclass(frozen=True)
class Step:
    """So many clients at so many chat pods, once."""

    pods: int
    clients: int
    turns_per_second: float
    cpu_ms: Mapping[str, float]
    """Milliseconds of CPU a turn, by process."""
    elsewhere: float
    """Cores that were busy with something else."""

    @property
    def cores(self) -> float:
        """That were busy with these turns."""
        return self.turns_per_second * sum(self.cpu_ms.values()) / 1000


@dataclass(frozen=True)
class Runs:
    """All of them."""

    turns: Sequence[Step]
    first_turns: Sequence[Step]
    """Each turn was a session's first."""
    calls: Mapping[str, Mapping[str, float]]
    """System -> what a turn asks of sidecars and Redis -> how often."""
    actors: Sequence[actors.Look]
    users: Sequence[users.Look]
    rounds: Sequence[rounds.Look]
    about: Mapping[str, Mapping[str, Any]]
    """File -> when, of which revision, on how many cores, by which command."""
    left_out: int
    """Steps that something else disturbed."""

    @classmethod
    def read(cls, folder: Path = RUNS) -> Self:
        """Those of a folder.

        Raises:
            CommandError: a file is missing, or none of this program's.
        """
        told = {name: _read(folder / f"{name}.json") for name in FILES}
        turns, first_turns = (_steps(told[name]["steps"]) for name in ("turns", "first-turns"))
        kept = [[step for step in steps if step.elsewhere <= DISTURBED] for steps in (turns, first_turns)]
        return cls(
            *kept,
            told["calls"]["calls_a_turn"],
            [actors.Look(**look) for look in told["actors"]["looks"]],
            [users.Look(**look) for look in told["users"]["looks"]],
            [rounds.Look(**look) for look in told["rounds"]["looks"]],
            {name: found["about"] for name, found in told.items()},
            len(turns) + len(first_turns) - sum(map(len, kept)),
        )


FILES: Final = ("turns", "first-turns", "calls", "actors", "users", "rounds")


def _read(path: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        mend = f"`make bench-capacity BENCH_OPTIONS='--what {path.stem}'` measures it"
        raise CommandError(f"{path}: {error}; {mend}") from error
    return told


def _steps(told: Sequence[Mapping[str, Any]]) -> list[Step]:
    return [
        Step(int(found[1]), step["clients"], step["turns_per_second"], step["cpu_ms"], step["elsewhere"])
        for step in told
        if (found := _PODS.fullmatch(step["system"]))
    ]
