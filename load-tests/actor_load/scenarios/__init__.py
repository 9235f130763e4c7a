"""What a scenario does to the cluster under load, and what it finds: each a module, each a section of the report."""

from collections.abc import Callable
from typing import Final

from actor_load.scenarios.faults import faults
from actor_load.scenarios.idle import idle
from actor_load.scenarios.ring import ring
from actor_load.scenarios.rolling import rolling
from actor_load.scenarios.scale import scale
from actor_load.scenarios.stage import Stage
from actor_load.scenarios.storm import storm
from actor_load.scenarios.tour import tour

SCRIPTS: Final[dict[str, Callable[[Stage], None]]] = {
    "tour": tour,
    "scale": scale,
    "rolling": rolling,
    "storm": storm,
    "idle": idle,
    "ring": ring,
    "faults": faults,
}
"""``--scenario`` -> what it does."""
