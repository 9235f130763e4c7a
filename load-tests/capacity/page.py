"""docs/capacity.md: the model's answers, what they rest on, and how well it predicts."""

import textwrap
from collections.abc import Iterable
from math import floor, log10
from pathlib import Path
from statistics import mean
from typing import Final

import jinja2

from capacity.fit import SURE, Estimate
from capacity.model import (
    CPU,
    FITTED_ACTORS,
    FITTED_HOSTS,
    FITTED_TURNS,
    MODEL,
    PARTS,
    POD_CLIENTS,
    REDIS,
    SIDECAR,
    Check,
    Model,
)
from capacity.runs import DISTURBED
from cluster.client import CHAT, MEMORY

USERS: Final = (10_000, 1_000_000, 10_000_000)
WIDTH: Final = 124
MONTH_HOURS: Final = 730
MOST_DIGITS: Final = 4
"""That the value of an estimate is told with, however small its error is."""


def write(model: Model) -> str:
    """The page."""
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    # Markdown for a page of ours, from figures: nothing is escaped.
    environment = jinja2.Environment(  # noqa: S701
        loader=folder,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "lines": lines, "measured": measured, "round_number": round_number}
    return environment.get_template("page.md.j2").render(_told(model))


def _told(model: Model) -> dict[str, object]:
    runs = model.runs
    checks = list(model.checks())
    fit, whole = model.cpu, model.whole_cpu
    stays, goes = model.redis_fit(daily=False), model.redis_fit(daily=True)
    service, sidecar = (model.actor_bytes[name] for name in (CHAT, CHAT + SIDECAR))
    last = max(runs.rounds, key=lambda look: look.hosts)
    commands = sorted(model.commands)
    return {
        "demand": model.demand,
        "sure": f"{SURE:.0%}",
        "gib": 2**-30,
        "cores": runs.about["turns"]["cores"],
        "sizes": [model.sizes(users) for users in USERS],
        "ends": sorted(model.ends(), key=lambda end: end[1]),
        "model_ms": model.turn_ms(MODEL),
        "core_hours": model.core_hours(),
        "active_gib_hours": model.active_gib_hours(),
        "kept_gib": model.redis_gib_of_turns(),
        "pods": told_all(step.pods for step in runs.turns),
        "clients": told_all(step.clients for step in runs.turns),
        "pod_clients": POD_CLIENTS,
        "parts": [
            *((part, *map(fit[part].coefficient, range(3)), model.activation_ms[part]) for part in PARTS),
            ("all", *map(whole.coefficient, range(3)), total(model.activation_ms.values())),
        ],
        "turn_ms": model.whole_turn_ms,
        "chat_rate": model.per_process(CHAT),
        "memory_rate": model.per_process(MEMORY),
        "redis_rate": model.per_process(REDIS),
        "service_kb": service.coefficient(1) * 1e-3,
        "sidecar_kb": sidecar.coefficient(1) * 1e-3,
        "empty_mb": (service.coefficient(0) + sidecar.coefficient(0)) * 1e-6,
        "activations": model.activations_per_second,
        "activation_ms": model.actor_ms,
        "failed": sum(look.failed for look in runs.actors),
        "activated": max(look.active for look in runs.actors),
        "user_bytes": stays.coefficient(0),
        "turn_bytes": stays.coefficient(1),
        "character_bytes": stays.coefficient(2),
        "day_bytes": goes.coefficient(1),
        "day_character_bytes": goes.coefficient(2),
        "commands": f"{commands[0]:.1f} to {commands[-1]:.1f}",
        "first_ms": model.rounds.coefficient(0),
        "host_ms": model.rounds.coefficient(1),
        "pair_us": model.rounds.coefficient(2) * 1000,
        "placement_ms": last.placement_ms,
        "most_hosts": last.hosts,
        "fitted_actors": FITTED_ACTORS,
        "fitted_turns": FITTED_TURNS,
        "fitted_hosts": FITTED_HOSTS,
        "checks": checks,
        "missed": f"{mean(check.miss for check in checks if check.what.startswith(CPU)):+.0%}",
        "held": sum(check.held for check in checks),
        "disturbed": DISTURBED,
        "left_out": runs.left_out,
        "about": runs.about,
        "most_turns": max(look.turns for look in runs.users),
    }


def cost(model: Model, core_hour: float, gib_hour: float) -> str:
    """What a million turns cost in their first month, but for the language model, with prices of a core and of a GiB of
    memory for an hour."""
    cores, actors = model.core_hours() * core_hour, model.active_gib_hours() * gib_hour
    kept = model.redis_gib_of_turns() * (gib_hour * MONTH_HOURS)
    parts = f"CPU {number(cores)}, active actors {number(actors)}, what stays in Redis for a month {number(kept)}"
    return f"a million turns: {number(total([cores, actors, kept]))} ({parts})"


def told_all(numbers: Iterable[int]) -> str:
    """Each once: ``1, 2 and 4``."""
    *first, last = map(str, sorted(set(numbers)))
    return f"{', '.join(first)} and {last}" if first else last


def total(estimates: Iterable[Estimate]) -> Estimate:
    """The sum of some that do not depend on each other."""
    return sum(estimates, Estimate(0.0))


def number(value: Estimate | float) -> str:
    """With three digits; of an estimate, with as many as its error lets stand."""
    if not isinstance(value, Estimate):
        return _rounded(value, 2 - _magnitude(value))
    if not value.error:
        return number(value.value)
    digits = min(1 - _magnitude(value.error), MOST_DIGITS - 1 - _magnitude(value.value))
    return f"{_rounded(value.value, digits)} ± {_rounded(max(value.error, 10.0**-digits), digits)}"


def round_number(value: float) -> str:
    """With two digits that say something: 1,234,567 is 1,200,000."""
    return _rounded(round(value, 1 - _magnitude(value)), 0)


def measured(check: Check) -> str:
    """The middle, and from where to where it went."""
    spread = f" ({number(min(check.measured))} to {number(max(check.measured))})" if len(check.measured) > 1 else ""
    return number(check.middle) + spread


def lines(text: str) -> str:
    """A paragraph in lines of one length, however long its figures are."""
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"


def _magnitude(value: float) -> int:
    return floor(log10(abs(value))) if value else 0


def _rounded(value: float, digits: int) -> str:
    """A whole number keeps all of its digits: it may be a count."""
    shown = f"{value:,.{max(0, digits)}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown and value == int(value) else shown
