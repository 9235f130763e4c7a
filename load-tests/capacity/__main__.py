"""`make capacity`: writes docs/capacity.md from the runs in load-tests/capacity/runs.

With an option that assumes something else, or with prices, it prints what follows instead.
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import Final

from bench import options

from capacity import page
from capacity.model import Demand, Model
from capacity.runs import RUNS, Runs
from cluster.versions import ROOT

PAGE: Final = ROOT / "docs" / "capacity.md"
HELP: Final = {
    "turns_a_day": "turns of a user in a day",
    "busiest_hour": "share of a day's turns that come in its busiest hour",
    "session_turns": "turns in a row, before the actor falls idle",
    "idle_seconds": "until it falls idle",
    "characters": "of a message and its reply",
    "days_kept": "how long what is stored stays",
    "busy": "share of a core that a process may use in the busiest hour",
    "server_gib": "memory of the largest Redis, GiB",
}
PRICES: Final = {"core_hour": "price of a core for an hour", "gib_hour": "price of a GiB of memory for an hour"}


def main(arguments: list[str] | None = None) -> int:
    """0; 1 where a run can't be read, 2 where it was called wrongly."""
    return options.run(lambda: _capacity(_parse(arguments)))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = options.Parser(prog="python -m capacity", description=__doc__)
    parser.add_argument("--runs", type=Path, default=RUNS, help="the folder of the runs (load-tests/capacity/runs)")
    for field in fields(Demand):
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=_positive, help=f"{HELP[field.name]} ({field.default})")
    for price, text in PRICES.items():
        parser.add_argument(f"--{price.replace('_', '-')}", type=_positive, help=text)
    return parser.parse_args(arguments)


def _capacity(chosen: argparse.Namespace) -> int:
    assumed = {name: given for name in HELP if (given := getattr(chosen, name)) is not None}
    model = Model(Runs.read(chosen.runs), Demand(**assumed))
    if chosen.core_hour is not None or chosen.gib_hour is not None:
        print(page.cost(model, chosen.core_hour or 0.0, chosen.gib_hour or 0.0))
    elif assumed or chosen.runs != RUNS:
        print(page.write(model), end="")
    else:
        PAGE.write_text(page.write(model))
        print(PAGE)
    return 0


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
