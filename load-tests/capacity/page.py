"""docs/capacity.md: the model's answers, what they rest on, and how well it predicts."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from capacity.fit import SURE, Estimate
from capacity.model import (
    FITTED_ACTORS,
    FITTED_HOSTS,
    FITTED_PODS,
    FITTED_TURNS,
    PARTS,
    POD_CLIENTS,
    REDIS,
    YEAR_DAYS,
    Check,
    Model,
)
from capacity.runs import DISTURBED, FILES
from cluster.client import CHAT, MEMORY

USERS: Final = (10_000, 1_000_000, 10_000_000)
WIDTH: Final = 124
MONTH_HOURS: Final = 730


def write(model: Model) -> str:
    """The page."""
    parts = (_answers, _ends, _cost, _fitted, _checks, _runs)
    return "\n".join([*_begin(model), *(line for part in parts for line in ("", *part(model)))]) + "\n"


def _begin(model: Model) -> Iterator[str]:
    demand = model.demand
    yield "# Capacity"
    yield ""
    yield "<!-- Written by `make capacity` from load-tests/capacity/runs: change load-tests/capacity, not this page. -->"
    yield ""
    yield from _text(
        "What do 10,000 users take, or 10 million, and what ends first? Worked out from runs on one machine of two cores; "
        "[below](#predicted-and-measured) is how well the same model predicts runs that it was not fitted to. Everything "
        f"after ± is half of a {SURE:.0%} interval, from the residuals of the fit alone: another machine, another disk and "
        "other users are not in it."
    )
    yield ""
    yield from _text("What users do is assumed; `make capacity BENCH_OPTIONS=--help` has an option for each of these:")
    yield ""
    yield from _table(
        ("assumed", ""),
        [
            ("turns of a user in a day", f"{demand.turns_a_day:g}"),
            ("share of a day's turns that come in its busiest hour", f"{demand.busiest_hour:.0%}"),
            ("turns in a row, before the actor falls idle", f"{demand.session_turns:g}"),
            ("until it falls idle (`actorIdleTimeout`, the chart's default)", f"{demand.idle_seconds:,.0f} s"),
            ("characters of a message and its reply", f"{demand.characters:g}"),
            ("share of a core that a process may use in the busiest hour", f"{demand.busy:.0%}"),
            ("memory of the largest Redis", f"{demand.server_gib:g} GiB"),
        ],
    )


def _answers(model: Model) -> Iterator[str]:
    yield "## What so many users take"
    yield ""
    sizes = [model.sizes(users) for users in USERS]
    yield from _table(
        ("in the busiest hour", *(f"{users:,} users" for users in USERS)),
        [
            ("turns a second", *(f"{size.turns_per_second:,.1f}" for size in sizes)),
            ("cores busy, everything but the model's own", *(str_of(size.cores) for size in sizes)),
            ("pods of chat-service", *(f"{size.chat_pods:,}" for size in sizes)),
            ("pods of agent-memory-service", *(f"{size.memory_pods:,}" for size in sizes)),
            ("actors active at once", *(f"{size.active:,.0f}" for size in sizes)),
            ("memory of chat pods and sidecars, GiB", *(str_of(size.actor_bytes * 2**-30) for size in sizes)),
            ("cores busy in Redis, of one that it can use", *(str_of(size.redis_cores) for size in sizes)),
            (f"Redis after {YEAR_DAYS} days, GiB", *(str_of(size.redis_bytes * 2**-30) for size in sizes)),
            ("a round of placement, all in one namespace, ms", *(str_of(size.round_ms) for size in sizes)),
            ("bundles of their own (cells)", *(f"{size.cells:,}" for size in sizes)),
        ],
    )
    yield ""
    yield from _text(
        "Two pods of each are the least for who wants to lose one. Cores are those of the machine that was measured. The "
        "model that answers (a language model) is not in it: it was the offline one, which takes "
        f"{str_of(model.cpu['model'].mean((1, 1, 1 / POD_CLIENTS)))} ms of CPU a turn."
    )


def _ends(model: Model) -> Iterator[str]:
    yield "## What ends where"
    yield ""
    yield from _table(
        ("what", "users, if all else holds"),
        [(what, f"{users:,.0f}") for what, users in sorted(model.ends(), key=_second)],
    )
    yield ""
    yield from _text(
        "**Redis ends first**, by memory or by its one thread. Redis Cluster does not help: Dapr cannot keep the actors' "
        "state in it ([operating.md](operating.md#redis)). What can be split is the bundle: a turn touches nothing of any "
        "other user. So the unit of growth is a **cell**: a namespace with a release of its own, and its own Redis; users "
        "are sent to cells by a hash of their id, before the bundle. A cell's rounds of placement are its own (they are by "
        "namespace in Dapr 1.18), so cells keep placement small as well. Transcripts are what grows: who keeps them "
        "elsewhere, or for less than a year, needs fewer cells."
    )
    yield ""
    yield from _text(
        "**Placement** has a round for each host that comes or goes, in which calls to moving actors wait; each host is sent "
        "the table of all, so a round grows with the square of the hosts. The measured rounds are placement's own: its hosts "
        "answered at once, where a sidecar first ends the actors that move ([moves.md](moves.md)). A rolling update of N pods "
        "has 2 N rounds unless placement puts those that come together into one (`--disseminate-coalesce-window`)."
    )
    yield ""
    yield from _text(
        "**The scheduler** has nothing to do with how many users there are: no turn, session or actor makes a job or a "
        "reminder. It has a connection for each sidecar. Where it places the actors (Dapr 1.19) it was not measured."
    )


def _cost(model: Model) -> Iterator[str]:
    yield "## What a million turns cost"
    yield ""
    yield "```"
    yield f"cost = {str_of(model.core_hours()):>16} core-hours      x price of a core for an hour"
    yield f"     + {str_of(model.active_gib_hours()):>16} GiB-hours       x price of a GiB of memory for an hour"
    yield f"     + {str_of(model.redis_gib_of_turns()):>16} GiB of Redis    x price of a GiB of memory for a month x months kept"
    yield "     +                  1,000,000 turns x price of what the language model reads and writes in a turn"
    yield "```"
    yield ""
    yield from _text(
        f"The first is the CPU of all parts, with cores {model.demand.busy:.0%} busy; the second the active actors, each for "
        "as long as it takes to fall idle; the third what stays of the turns. With prices: `make capacity "
        "BENCH_OPTIONS='--core-hour 0.04 --gib-hour 0.005'` (any currency) prints the sum of the first three for a month."
    )


def cost(model: Model, core_hour: float, gib_hour: float) -> str:
    """What a million turns cost in the first month, but for the language model, with prices of a core and of a GiB of
    memory for an hour."""
    cores, actors = model.core_hours() * core_hour, model.active_gib_hours() * gib_hour
    kept = model.redis_gib_of_turns() * (gib_hour * MONTH_HOURS)
    whole = _sum([cores, actors, kept])
    return (
        f"a million turns: {str_of(whole)} (CPU {str_of(cores)}, active actors {str_of(actors)}, "
        f"what stays in Redis for a month {str_of(kept)})"
    )


def _fitted(model: Model) -> Iterator[str]:
    yield "## What was fitted"
    yield ""
    yield from _text(
        "**CPU of a turn**, milliseconds by part, from runs with "
        f"{' and '.join(map(str, FITTED_PODS))} chat pods and 8, 16 and 32 clients. N pods, c clients: "
        "`a + b (1 - 1/N) + d N/c`. `1 - 1/N` is the share of turns that reach another pod than that of their actor, and "
        "`N/c` what a pod with little to do at once wastes. `first` is what a session's first turn takes more."
    )
    yield ""
    rows = [
        (part, *(str_of(model.cpu[part].coefficient(column)) for column in range(3)), str_of(model.activation_ms[part]))
        for part in PARTS
    ]
    whole = model.whole_cpu
    yield from _table(
        ("part", "a", "b", "d", "first"),
        [*rows, ("all", *(str_of(whole.coefficient(column)) for column in range(3)), "")],
    )
    yield ""
    yield from _text(
        f"So on many pods, with {POD_CLIENTS} turns at once in each, a turn takes {str_of(model.whole_turn_ms)} ms with its "
        "share of an activation, and one process, "
        f"{model.demand.busy:.0%} busy, answers: chat-service {str_of(model.per_process(CHAT))} turns/s, "
        f"agent-memory-service {str_of(model.per_process(MEMORY))}, Redis {str_of(model.per_process(REDIS))}."
    )
    yield ""
    actors = model.actor_bytes
    yield from _text(
        "**An active actor** takes "
        + ", ".join(f"{str_of(fit.coefficient(1) * 1e-3)} kB in {_process(name)}" for name, fit in actors.items())
        + f", beside {str_of(_sum(fit.coefficient(0) for fit in actors.values()) * 1e-6)} MB of a pod without any. One pod "
        f"activated {str_of(model.activations_per_second)} a second, each with a first write: after the loss of a pod with "
        "100,000 active actors the others need as long to have them all again as that rate says, if all are called at once."
    )
    yield ""
    stays, goes = model.redis_fit(daily=False), model.redis_fit(daily=True)
    yield from _text(
        f"**Redis** holds {str_of(stays.coefficient(0))} bytes a user, {str_of(stays.coefficient(1))} a turn and "
        f"{str_of(stays.coefficient(2))} for each character of it; what answers retries, and goes after a day, is "
        f"{str_of(goes.coefficient(1))} bytes a turn and {str_of(goes.coefficient(2))} a character. A turn is "
        f"{min(model.commands):.1f} to {max(model.commands):.1f} of its commands (some of them inside scripts), with 1 to 4 pods."
    )
    yield ""
    first, each, pair = (model.rounds.coefficient(column) for column in range(3))
    yield from _text(
        f"**A round of placement** with N hosts takes {str_of(first)} + {str_of(each)} N + {str_of(pair * 1000)} N²/1000 ms."
    )


def _checks(model: Model) -> Iterator[str]:
    checks = list(model.checks())
    held = sum(check.held for check in checks)
    yield "## Predicted and measured"
    yield ""
    yield from _text(
        f"Each is predicted from less than was measured: pods {' and '.join(map(str, FITTED_PODS))}, up to "
        f"{FITTED_ACTORS:,} actors, {FITTED_TURNS} turns, {FITTED_HOSTS} hosts. {held} of {len(checks)} are within the "
        "interval. All pods share two cores, so turns a second are the cores that were busy with two pods, divided by the CPU "
        "of a turn: what more cores would bring is not tested."
    )
    yield ""
    yield from _table(("what", "predicted", "measured", "off by", "within"), [_check_row(check) for check in checks])


def _check_row(check: Check) -> tuple[str, ...]:
    measured = f"{number(check.middle)} {check.unit}"
    if len(check.measured) > 1:
        measured += f" ({number(min(check.measured))} to {number(max(check.measured))})"
    off = check.middle / check.predicted.value - 1
    return (
        check.what,
        f"{str_of(check.predicted)} {check.unit}",
        measured,
        f"{off:+.0%}",
        "yes" if check.held else "**no**",
    )


def _runs(model: Model) -> Iterator[str]:
    yield "## The runs"
    yield ""
    yield from _text(
        "`make bench-capacity` measures all of it again (half an hour, on the cluster of `make up` and on this machine), into "
        "`load-tests/capacity/runs`; `make capacity` writes this page. "
        f"Steps during which something else took more than {DISTURBED:g} cores are left out ({model.runs.left_out} of these "
        "runs); others may have used the machine beside the rest."
    )
    yield ""
    yield from _table(
        ("file", "began", "revision", "cores", "command"),
        [
            (
                f"[{name}.json](../load-tests/capacity/runs/{name}.json)",
                str(about["began"])[:16].replace("T", " "),
                str(about["revision"]),
                str(about["cores"]),
                f"`{about['command']}`",
            )
            for name, about in ((name, model.runs.about[name]) for name in FILES)
        ],
    )
    yield ""
    yield from _text(
        "**Not measured:** more than one machine (network between nodes, and what a node's disk takes for `appendfsync: "
        "always`, which Redis waits for at every write); Redis of more than a few hundred MB; sidecars' own part in a round "
        "of placement; rounds with several replicas of placement; a year of transcripts (its bytes are extrapolated from "
        f"{max(look.turns for look in model.runs.users)} turns a user); languages whose characters are more than a byte."
    )


def str_of(estimate: Estimate) -> str:
    """With as many digits as its error lets stand."""
    return f"{number(estimate.value)} ± {number(estimate.error)}"


def number(value: float) -> str:
    """With three digits that say something, and no more."""
    size = abs(value)
    return f"{value:,.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 or not size else 4}f}"


def _process(name: str) -> str:
    return "its sidecar" if name.endswith("daprd") else name


def _sum(estimates: Iterable[Estimate]) -> Estimate:
    return sum(estimates, Estimate(0.0))


def _second(pair: tuple[str, float]) -> float:
    return pair[1]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _text(text: str) -> Iterator[str]:
    """Lines that are not too long."""
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > WIDTH:
            yield line
            line = word
        else:
            line = f"{line} {word}".strip()
    yield line
