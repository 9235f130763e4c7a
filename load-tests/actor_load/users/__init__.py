"""Who makes the load: people who chat, turns that arrive, and calls of actors through a Dapr sidecar."""

from locust.env import Environment

from actor_load import ids
from actor_load.users import visits, watch


def register(environment: Environment, prefix: str = "") -> None:
    """What users need of the runner, on every process; to be called once, in Locust's event ``init``.

    ``prefix``: see :func:`actor_load.ids.register`.
    """
    ids.register(environment, prefix)
    visits.answer_rounds(environment)
    watch.watch(environment)
