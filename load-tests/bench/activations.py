"""`make bench-activations`: actors activated with a first write, all deactivated, and all read again.

Runs ours as `make local` does, with a state of its own, and calls the actors through the sidecar of chat-service.
Prints the rates, and what an active actor takes of memory in the service and in its sidecar.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil

from bench import cpu, options, systems
from bench.actor_calls import SLOWEST_RATE, Caller, Pass
from bench.children import Child
from bench.wrk import Wrk
from cluster import screen
from cluster.client import CHAT
from cluster.errors import CommandError
from cluster.steps import say

LEAST_IDLE_SECONDS: Final = 5.0
SCAN_SECONDS: Final = 5
SETTLE_SECONDS: Final = 5
"""After the sidecar counts none: it has yet to tell the service of the last."""
KILOBYTE: Final = 1000

VISIT: Final = {"turn_id": "bench", "claim": "bench"}
"""A ``BeginTurn``, which writes nothing and tells the ``turn_no`` after that of the first write."""

Memory = dict[str, int]
"""Bytes of resident memory by process."""


def main(arguments: list[str] | None = None) -> int:
    """One run; 0, 1 where a call failed or something did not work, 2 where it was called wrongly."""
    return options.run(lambda: _bench(_parse(arguments)))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = options.Parser(prog="python -m bench.activations", description=__doc__)
    parser.add_argument("--users", type=options.count(1, 1_000_000), default=100_000, help="actors (100000)")
    parser.add_argument("--at-once", type=options.count(1, 1000), default=32, help="calls that are under way (32)")
    parser.add_argument("--to", type=Path, help="the folder for activations.json (load-results/<time>-activations)")
    return parser.parse_args(arguments)


def _bench(chosen: argparse.Namespace) -> int:
    began = datetime.now(UTC)
    folder = options.folder(chosen.to, began, "activations")
    wrk = Wrk()
    # No actor may fall idle before the last one is active.
    idle_seconds = max(LEAST_IDLE_SECONDS, chosen.users / SLOWEST_RATE)
    env = {"ACTOR_IDLE_TIMEOUT_SECONDS": f"{idle_seconds:g}", "ACTOR_SCAN_INTERVAL_SECONDS": str(SCAN_SECONDS)}
    with tempfile.TemporaryDirectory(prefix="daca-bench-") as scratch, systems.local(Path(scratch), env) as child:
        caller = Caller(wrk, systems.local_sidecar(), range(chosen.users), chosen.at_once)
        passes, memory, active = _measure(caller, child, chosen.users, idle_seconds)
    per_actor = {name: (memory["active"][name] - memory["before"][name]) / active for name in memory["before"]}
    written = folder / "activations.json"
    counts = {"users": chosen.users, "at_once": chosen.at_once, "active_at_once": active}
    about = options.about("bench-activations", began) | counts
    found = {"passes": [asdict(one) | {"rate": one.rate} for one in passes], "memory": memory, "per_actor": per_actor}
    written.write_text(json.dumps({"about": about, **found}, indent=1) + "\n")
    _show(passes, memory, per_actor)
    print(written)
    return 1 if any(one.failed for one in passes) else 0


def _measure(
    caller: Caller, child: Child, users: int, idle_seconds: float
) -> tuple[list[Pass], dict[str, Memory], int]:
    """The passes, memory by moment, and how many actors were active at once."""
    memory = {"before": memory_of(child)}
    passes = [caller.all("activated, with a first write", "ClearHistory", {}, 1)]
    active, memory["active"] = caller.active(), memory_of(child)
    say(f"{active:,} of {users:,} are active; all fall idle after {idle_seconds:.0f} s")
    _until_none_is_active(caller, 2 * idle_seconds + 60 + users / SLOWEST_RATE)
    time.sleep(SETTLE_SECONDS)
    memory["deactivated"] = memory_of(child)
    say("none is active")
    passes.append(caller.all("activated again, and read", "BeginTurn", VISIT, 2))
    memory["active again"] = memory_of(child)
    return passes, memory, active


def _until_none_is_active(caller: Caller, seconds: float) -> None:
    last = time.monotonic() + seconds
    while caller.active():
        if time.monotonic() > last:
            raise CommandError(f"actors are still active after {seconds:.0f} s")
        time.sleep(1)


def memory_of(child: Child) -> Memory:
    """Resident memory of chat-service and of its sidecar, where ``child`` is `make local`."""
    processes = cpu.look()
    found: Memory = {}
    for pid in cpu.below(child.pid)(processes):
        name = cpu.name_of(processes[pid].command)
        if name in {CHAT, f"{CHAT}'s daprd"}:
            found[name] = psutil.Process(pid).memory_info().rss
    return found


def _show(passes: list[Pass], memory: dict[str, Memory], per_actor: dict[str, float]) -> None:
    console = screen.console()
    shown = screen.table("Every actor once", "", "calls", "a second", "failed", "p50 ms", "p99 ms")
    for one in passes:
        figures = (f"{one.calls:,}", f"{one.rate:.0f}", _told(one.failed), f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}")
        shown.add_row(one.what, *figures)
    console.print(shown)
    shown = screen.table("Resident memory, MB", "", *memory, "kB of each active")
    for name, each in per_actor.items():
        shown.add_row(name, *(f"{look[name] / KILOBYTE**2:.0f}" for look in memory.values()), f"{each / KILOBYTE:.1f}")
    console.print(shown)


def _told(failed: Mapping[str, int]) -> str:
    return ", ".join(f"{count}: {what}" for what, count in failed.items()) or "0"


if __name__ == "__main__":
    sys.exit(main())
