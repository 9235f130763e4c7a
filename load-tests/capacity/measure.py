"""`make bench-capacity`: measures what `make capacity` works with, and keeps it in load-tests/capacity/runs.

A file for each kind: turns (the cluster of `make up` with 1, 2 and 4 chat pods), first-turns (the same, where each turn
is a session's first), calls (what a turn asks of sidecars and Redis), actors, users, rounds. Nothing else should run on
the machine meanwhile.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench import __main__ as bench
from bench import options

from capacity import actors, rounds, users
from capacity.runs import RUNS
from cluster.errors import CommandError
from cluster.steps import say

CLUSTER: Final = ("--systems", "cluster", "--seconds", "6")
TURNS: Final = ("--pods", "1,2,4", "--clients", "8,16,32", "--rounds", "3")
FIRST_TURNS: Final = ("--pods", "1,2", "--clients", "32", "--rounds", "3", "--users", "1000000")
"""Of so many users nearly none is asked twice."""
CALLS: Final = ("--pods", "1,2,4", "--clients", "32", "--rounds", "0", "--calls")


def main(arguments: list[str] | None = None) -> int:
    """One run; 0, 1 where something did not work, 2 where it was called wrongly."""
    return options.run(lambda: _measure(_parse(arguments)))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = options.Parser(prog="python -m capacity.measure", description=__doc__)
    parser.add_argument(
        "--what", type=_kinds, default=list(KINDS), help=f"with commas: {', '.join(KINDS)}; without, all"
    )
    parser.add_argument("--to", type=Path, default=RUNS, help="the folder for the files (load-tests/capacity/runs)")
    parser.add_argument(
        "--most-actors", type=options.count(actors.COUNTS[0], 1_000_000), default=actors.COUNTS[-1], help="(300000)"
    )
    return parser.parse_args(arguments)


def _measure(chosen: argparse.Namespace) -> int:
    for kind in chosen.what:
        began = datetime.now(UTC)
        folder = options.folder(chosen.to, began, kind)
        say(kind)
        found = KINDS[kind](chosen)
        about = options.about("bench-capacity", began)
        written = folder / f"{kind}.json"
        written.write_text(json.dumps({"about": about, **found}, indent=1) + "\n")
        print(written)
    return 0


def _bench(*arguments: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="daca-bench-") as folder:
        if bench.main([*CLUSTER, *arguments, "--to", folder]):
            raise CommandError("the bench has failed: what it said is above")
        told: dict[str, Any] = json.loads((Path(folder) / "bench.json").read_text())
    return {name: told[name] for name in ("steps", "calls_a_turn") if told[name]}


def _looks(looks: Iterable[Any]) -> dict[str, Any]:
    return {"looks": [asdict(look) for look in looks]}


KINDS: Final[dict[str, Callable[[argparse.Namespace], dict[str, Any]]]] = {
    "turns": lambda _: _bench(*TURNS),
    "first-turns": lambda _: _bench(*FIRST_TURNS),
    "calls": lambda _: _bench(*CALLS),
    "actors": lambda chosen: _looks(actors.measure([count for count in actors.COUNTS if count <= chosen.most_actors])),
    "users": lambda _: _looks(users.measure(users.USERS, users.TURNS, users.CHARACTERS)),
    "rounds": lambda _: _looks(rounds.measure(rounds.HOSTS)),
}


def _kinds(text: str) -> list[str]:
    kinds = list(dict.fromkeys(text.split(",")))
    for kind in kinds:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"{kind!r} is none of {', '.join(KINDS)}")
    return kinds


if __name__ == "__main__":
    sys.exit(main())
