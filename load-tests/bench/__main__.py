"""`make bench`: ours and a chat without Dapr on this machine, with a model at 0 ms, in turns.

Prints turns a second, latencies, CPU milliseconds a turn by process, and ratios; writes all of it as JSON and draws it.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench import options, picture, report, systems
from bench.run import Plan, Run, Step
from bench.systems import CLUSTER, PEER, SYSTEMS
from bench.wrk import Wrk
from cluster import screen
from cluster.errors import CommandError
from cluster.steps import say

WIDTH: Final = 150
"""Of the tables in a file."""


def main(arguments: list[str] | None = None) -> int:
    """One run; 0, 1 where a turn failed or something did not work, 2 where it was called wrongly."""
    return options.run(lambda: _bench(parse(arguments)))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options, checked.

    Raises:
        CommandError: one is not what it should be.
    """
    parser = options.Parser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--systems",
        type=_names,
        help=f"which, with commas: {', '.join(SYSTEMS)}; without, {PEER}, and {CLUSTER} if that of `make up` answers",
    )
    parser.add_argument("--pods", type=_counts(1, 9), default=[1, 2], help="of chat-service on the cluster (1,2)")
    parser.add_argument("--clients", type=_counts(1, 1000), default=[1, 8, 32], help="at once (1,8,32)")
    parser.add_argument("--rounds", type=options.count(0, 100), default=3, help="of all systems, in turns (3)")
    parser.add_argument("--seconds", type=options.count(3, 600), default=10, help="of each step (10)")
    parser.add_argument(
        "--users", type=options.count(1, 1_000_000), default=200, help="who take turns, at random (200)"
    )
    parser.add_argument(
        "--calls", action="store_true", help="count also what a turn asks of sidecars and Redis (alone: --rounds 0)"
    )
    parser.add_argument("--to", type=Path, help="the folder for bench.json and bench.png (load-results/<time>-bench)")
    parser.add_argument("--cluster", default=os.environ.get("CLUSTER", ""), help="as for `make up` [CLUSTER]")
    parser.add_argument("--namespace", default=os.environ.get("NAMESPACE", ""), help="of the bundle [NAMESPACE]")
    chosen = parser.parse_args(arguments)
    if not chosen.rounds and not chosen.calls:
        raise CommandError("--rounds 0 measures nothing without --calls", exit_code=2)
    return chosen


def _bench(chosen: argparse.Namespace) -> int:
    target = None
    names = chosen.systems
    if names is None or CLUSTER in names:
        target = systems.cluster_that_is_up(chosen.cluster, chosen.namespace)
    if names is None:
        names = [PEER, CLUSTER] if target else [PEER]
    elif CLUSTER in names and target is None:
        raise CommandError(
            "no cluster is up whose chat answers at a NodePort: `make up` first, `make status` says more"
        )
    wrk = Wrk()
    plan = Plan(chosen.rounds, chosen.seconds, chosen.clients, chosen.users)
    began = datetime.now(UTC)
    folder = options.folder(chosen.to, began, "bench")
    steps: list[Step] = []
    counted: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="daca-bench-") as scratch,
        systems.started(names, chosen.pods, target, Path(scratch)) as up,
    ):
        say(f"up: {'; '.join(system.name for system in up)}")
        run = Run(wrk, plan)
        for step in run.steps(up):
            steps.append(step)
            say(_told(step))
        for system in up if chosen.calls else []:
            if system.counters:
                counted[system.name] = run.calls(system, max(plan.clients))
                say(f"{system.name}: counted what a turn asks for")
    about = {
        **options.about("bench", began),
        "systems": {system.name: system.images for system in up},
        "plan": asdict(plan),
    }
    written = _write(folder, about, steps, counted)
    console = screen.console()
    if not console.is_terminal:
        console.width = WIDTH
    report.show(console, steps, counted)
    for path in written:
        print(path)
    return 1 if any(step.load.failed for step in steps) else 0


def _write(
    folder: Path, about: Mapping[str, Any], steps: list[Step], counted: Mapping[str, Mapping[str, float]]
) -> list[Path]:
    """The run as JSON and, where something was timed, as a picture."""
    written = [folder / "bench.json"]
    written[0].write_text(json.dumps(report.as_json(about, steps, counted), indent=1) + "\n")
    if steps:
        written.append(folder / "bench.png")
        written[-1].write_bytes(picture.draw(report.summaries(steps), f"{about['began'][:10]}, {os.cpu_count()} cores"))
    return written


def _told(step: Step) -> str:
    load = step.load
    words = [
        f"round {step.round}, {step.system}, {step.clients} clients: {load.turns_per_second:.0f} turns/s",
        f"p50 {load.p50_ms:.1f} ms",
        f"p99 {load.p99_ms:.1f} ms",
        f"{sum(step.cpu_ms.values()):.1f} ms of CPU a turn",
        *([f"{load.failed} FAILED"] if load.failed else []),
    ]
    return ", ".join(words)


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in SYSTEMS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SYSTEMS)}")
    return names


def _counts(least: int, most: int) -> Callable[[str], list[int]]:
    one = options.count(least, most)
    return lambda text: list(dict.fromkeys(map(one, text.split(","))))


if __name__ == "__main__":
    sys.exit(main())
