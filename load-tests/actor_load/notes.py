"""Where the Locust users of a process note what they were told, if the run is to be checked by it afterwards."""

from typing import Any
from weakref import WeakKeyDictionary

from locust.env import Environment

from actor_load.checker.told import Notes
from actor_load.options import Options

_notes: WeakKeyDictionary[Environment, Notes] = WeakKeyDictionary()


def of(environment: Environment) -> Notes | None:
    """Those of this process; ``None`` where the run is not checked by them."""
    return _notes.setdefault(environment, Notes()) if Options.of(environment).verifies else None


def take(environment: Environment) -> dict[str, Any] | None:
    """What was noted since the last time, as a message; ``None`` where nothing ever was."""
    noted = _notes.get(environment)
    return noted.take() if noted else None
