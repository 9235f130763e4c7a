"""What a scenario does to the cluster under load, and what it finds: each a module, each a section of the report.

:mod:`actor_load.scenario` lists them.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Final

from actor_load.scenario import SCENARIOS
from actor_load.scenarios.stage import Stage

SCRIPTS: Final[dict[str, Callable[[Stage], None]]] = {
    name: getattr(import_module(f"{__name__}.{name}"), name) for name in SCENARIOS
}
"""``--scenario`` -> what it does. One that is listed without a script is an error here, not in the middle of a run."""
