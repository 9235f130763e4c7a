"""Dapr's placement where its scheduler does it: rendezvous hashing, as of Dapr 1.19.

Every host of an actor type has a score for an id: XXH64, seed 0, of ``<address>||<id>``, where the address is
``ip:port`` as the sidecar reports it. The id belongs to the host with the highest score; of two with the same, to the
one whose address sorts first. There are no weights and no virtual nodes
(github.com/dapr/dapr/pkg/actors/hashing/rendezvous/rendezvous.go, dapr/proto/scheduler/v1/placement.proto).
"""

from collections.abc import Iterable
from typing import Self

from xxhash import xxh64_intdigest


class Rendezvous:
    """The hosts of an actor type, with the methods of :class:`actor_load.placement.ring.Ring`."""

    def __init__(self, addresses: Iterable[str]) -> None:
        """``addresses`` are those of the table, ``ip:port``, in any order.

        Raises:
            ValueError: there is none.
        """
        self.addresses: tuple[str, ...] = tuple(sorted(set(addresses)))
        if not self.addresses:
            raise ValueError("placement needs at least one host")

    def host_of(self, actor_id: str) -> str:
        """The address of the host that an actor lives on."""
        # Of equal scores `max` takes the first, and the addresses are sorted.
        return max(self.addresses, key=lambda address: xxh64_intdigest(f"{address}||{actor_id}".encode()))

    def shares(self) -> dict[str, float]:
        """Address -> share of all conceivable ids: the same for each, because no score prefers a host."""
        return dict.fromkeys(self.addresses, 1 / len(self.addresses))

    def moved(self, after: Self) -> float:
        """Share of all conceivable ids that have another host in ``after``.

        An id stays where the best of all hosts, those before and those after, is among both.
        """
        before, then = set(self.addresses), set(after.addresses)
        return 1 - len(before & then) / len(before | then)
