"""What active actors take, by how many there are: memory of the service and of its sidecar, CPU and time to activate.

Runs ours as `make local` does, with a state of its own; actors are activated with a first write and stay active.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from bench import cpu, systems
from bench.activations import Memory, memory_of
from bench.actor_calls import Caller
from bench.wrk import Wrk

from cluster.steps import say

COUNTS: Final = [5_000, 10_000, 20_000, 30_000, 40_000, 50_000, 100_000, 200_000, 300_000]
AT_ONCE: Final = 32
IDLE_SECONDS: Final = 3600
"""None falls idle before the last one is looked at."""


@dataclass(frozen=True)
class Look:
    """So many actors are active."""

    active: int
    """Beside those that were before the first look."""
    memory: Memory
    """Resident, bytes, by process."""
    rate: float
    """Activations a second since the look before; 0 at the first."""
    cpu_ms: dict[str, float]
    """Milliseconds of CPU an activation since the look before, by process."""
    failed: int
    """Calls since the look before that failed, or did not do what they should."""


def measure(counts: Sequence[int]) -> list[Look]:
    """A look at none, and at each of ``counts``, which rise."""
    env = {"ACTOR_IDLE_TIMEOUT_SECONDS": str(IDLE_SECONDS)}
    with tempfile.TemporaryDirectory(prefix="daca-bench-") as scratch, systems.local(Path(scratch), env) as child:
        scope = systems.local_scope(child)
        wrk = Wrk()

        def looks() -> Iterator[Look]:
            others = Caller(wrk, systems.local_sidecar(), range(0), AT_ONCE).active()
            yield Look(0, memory_of(child), 0, {}, 0)
            for first, last in pairwise([0, *counts]):
                before = cpu.look()
                caller = Caller(wrk, systems.local_sidecar(), range(first, last), AT_ONCE)
                done = caller.all("activated", "ClearHistory", {}, 1)
                spent = cpu.spent(before, cpu.look(), scope)
                each = {name: 1000 * seconds / done.calls for name, seconds in spent.items()}
                say(f"{last:,} actors: {done.rate:.0f} activations a second, failed: {dict(done.failed)}")
                yield Look(caller.active() - others, memory_of(child), done.rate, each, sum(done.failed.values()))

        return list(looks())
