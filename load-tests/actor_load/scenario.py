"""The scenarios: what each is called, does, takes and may do. All else follows from here.

A scenario's script is the function of its name in the module of its name in :mod:`actor_load.scenarios`. From this list
come the choices of ``--scenario``, its help and that of the options, the names that the chart takes and the rights that
it asks for (``charts/generate_schema.py`` writes them), and what ``make load`` takes and sets. Tests hold the pages to
it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

NONE: Final = "none"
"""What ``--scenario`` is without one."""


class Right(StrEnum):
    """What the master may do to the cluster; the chart has a value below ``rbac`` of each one's name."""

    CHANGE = "scenarios"
    """Scale, restart and set up the Deployment under load."""
    DELETE = "faults"
    """Delete pods of the release and of Dapr's control plane."""


@dataclass(frozen=True)
class Scenario:
    """One of them."""

    name: str
    text: str
    """What it does, in a clause."""
    options: tuple[str, ...] = ()
    """Fields of :class:`actor_load.options.Options` that it heeds, beside those of all."""
    rights: tuple[Right, ...] = ()
    verifies: bool = False
    """Whether what was stored is checked afterwards, unless ``--verify off`` says otherwise."""


SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        one.name: one
        for one in (
            Scenario(
                "tour",
                "what one pod holds, then a scale-out under load",
                ("knee_p95", "knee_error_rate"),
                (Right.CHANGE,),
            ),
            Scenario("scale", "the number of pods changes under load", ("pods", "active_actors"), (Right.CHANGE,)),
            Scenario("rolling", "every pod is replaced under load", ("active_actors",), (Right.CHANGE,)),
            Scenario("storm", "many actors are activated at once", ("storm_actors",)),
            Scenario(
                "idle",
                "the same, then all fall idle and are activated again",
                ("storm_actors", "idle_seconds"),
                (Right.CHANGE,),
            ),
            Scenario("ring", "where actors live, on each number of pods", ("actors", "pods"), (Right.CHANGE,)),
            Scenario(
                "faults",
                "one part after the other fails under load",
                ("faults", "active_actors"),
                (Right.DELETE,),
                verifies=True,
            ),
        )
    }
)
"""By name, in the order in which they are told."""
NAMES: Final = (NONE, *SCENARIOS)
"""What ``--scenario`` takes."""


def heeding(option: str) -> list[str]:
    """Names of the scenarios that heed an option."""
    return [name for name, scenario in SCENARIOS.items() if option in scenario.options]
