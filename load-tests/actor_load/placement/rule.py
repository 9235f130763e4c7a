"""Which rule places actors: it depends on the part of Dapr that does it."""

from collections.abc import Iterable

from actor_load.placement.rendezvous import Rendezvous
from actor_load.placement.ring import Ring
from actor_load.record import Placer


def rule(placer: Placer, addresses: Iterable[str]) -> Ring | Rendezvous:
    """The rule over the hosts of an actor type, whose addresses are ``ip:port``.

    Raises:
        ValueError: there is none.
    """
    return Rendezvous(addresses) if placer == "scheduler" else Ring(addresses)
