"""`make bench`: ours and a chat without Dapr on this machine, with a model at 0 ms, in turns.

Prints turns a second, latencies, CPU milliseconds a turn by process, and ratios; writes all of it as JSON and draws it.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from bench import picture, report, systems
from bench.run import Plan, Run, Step
from bench.systems import CLUSTER, PEER, SYSTEMS
from bench.wrk import Wrk
from cluster import screen, shell
from cluster.errors import CommandError
from cluster.steps import say
from cluster.versions import ROOT

WIDTH: Final = 150
"""Of the tables in a file."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the other commands do."""

    def error(self, message: str) -> NoReturn:
        raise CommandError(message, exit_code=2)


def main(arguments: list[str] | None = None) -> int:
    """One run; 0, 1 where a turn failed or something did not work, 2 where it was called wrongly."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)
    try:
        return _bench(parse(arguments))
    except CommandError as error:
        if error.said:
            print(error.said, file=sys.stderr)
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted; what was started is ended", file=sys.stderr)
        return 130


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options, checked.

    Raises:
        CommandError: one is not what it should be.
    """
    parser = _Parser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--systems",
        type=_names,
        help=f"which, with commas: {', '.join(SYSTEMS)}; without, {PEER}, and {CLUSTER} if that of `make up` answers",
    )
    parser.add_argument("--pods", type=_counts(1, 9), default=[1, 2], help="of chat-service on the cluster (1,2)")
    parser.add_argument("--clients", type=_counts(1, 1000), default=[1, 8, 32], help="at once (1,8,32)")
    parser.add_argument("--rounds", type=_count(0, 100), default=3, help="of all systems, in turns (3)")
    parser.add_argument("--seconds", type=_count(3, 600), default=10, help="of each step (10)")
    parser.add_argument("--users", type=_count(1, 1_000_000), default=200, help="who take turns, at random (200)")
    parser.add_argument(
        "--calls", action="store_true", help="count also what a turn asks of sidecars and Redis (alone: --rounds 0)"
    )
    parser.add_argument("--to", type=Path, help="the folder for bench.json and bench.png (load-results/<time>-bench)")
    parser.add_argument("--cluster", default=os.environ.get("CLUSTER", ""), help="as for `make up` [CLUSTER]")
    parser.add_argument("--namespace", default=os.environ.get("NAMESPACE", ""), help="of the bundle [NAMESPACE]")
    options = parser.parse_args(arguments)
    if not options.rounds and not options.calls:
        raise CommandError("--rounds 0 measures nothing without --calls", exit_code=2)
    return options


def _bench(options: argparse.Namespace) -> int:
    target = None
    names = options.systems
    if names is None or CLUSTER in names:
        target = systems.cluster_that_is_up(options.cluster, options.namespace)
    if names is None:
        names = [PEER, CLUSTER] if target else [PEER]
    elif CLUSTER in names and target is None:
        raise CommandError(
            "no cluster is up whose chat answers at a NodePort: `make up` first, `make status` says more"
        )
    wrk = Wrk()
    plan = Plan(options.rounds, options.seconds, options.clients, options.users)
    began = datetime.now(UTC)
    folder = options.to or ROOT / "load-results" / f"{began:%Y%m%dT%H%M%SZ}-bench"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            f"{folder}: cannot be written ({error.strerror}): name another with --to", exit_code=2
        ) from error
    steps: list[Step] = []
    counted: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="daca-bench-") as scratch,
        systems.started(names, options.pods, target, Path(scratch)) as up,
    ):
        say(f"up: {'; '.join(system.name for system in up)}")
        run = Run(wrk, plan)
        for step in run.steps(up):
            steps.append(step)
            say(_told(step))
        for system in up if options.calls else []:
            if system.counters:
                counted[system.name] = run.calls(system, max(plan.clients))
                say(f"{system.name}: counted what a turn asks for")
    about = {
        "began": began.isoformat(),
        "revision": _revision(),
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


def _count(least: int, most: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least:,} to {most:,}")
        return int(text)

    return count


def _counts(least: int, most: int) -> Callable[[str], list[int]]:
    one = _count(least, most)
    return lambda text: list(dict.fromkeys(map(one, text.split(","))))


def _on_signal(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _revision() -> str:
    try:
        return shell.run(["git", "-C", ROOT, "describe", "--always", "--dirty"]).strip()
    except CommandError:  # a checkout without git
        return ""


if __name__ == "__main__":
    sys.exit(main())
