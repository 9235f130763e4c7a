"""Dapr's placement, simulated: which host an actor id falls to, how uneven that is, and what moves when hosts change.

Dapr keeps one ring for each actor type of a namespace. A host has 100 virtual nodes: the hashes of its address
(``ip:port``, as placement's table names it) followed by 0 to 99. An id belongs to the first virtual node at or after
its own hash, past the end to the very first. The hash is the first eight bytes of BLAKE2b-512, little-endian
(github.com/dapr/dapr/pkg/placement/hashing/consistent_hash.go, 1.18).
"""

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from statistics import median
from typing import Final

REPLICATION: Final = 100
"""Virtual nodes of a host; ``dapr_placement.replicationFactor`` of Dapr's chart."""

RINGS: Final = 200
"""Random rings that a prediction looks at."""

_CIRCLE: Final = 1 << 64
_SIDECAR_PORT: Final = 50002


class Ring:
    """The ring of some hosts: ``Ring(["10.0.0.1:50002", "10.0.0.2:50002"]).host_of("alice")``."""

    def __init__(self, addresses: Iterable[str], replication: int = REPLICATION) -> None:
        """``addresses`` are those of placement's table, ``ip:port``, in any order.

        Raises:
            ValueError: there is none.
        """
        self.addresses: tuple[str, ...] = tuple(sorted(set(addresses)))
        if not self.addresses:
            raise ValueError("a ring needs at least one host")
        nodes = {_hash(f"{address}{number}"): address for address in self.addresses for number in range(replication)}
        self.points = sorted(nodes)
        """The hashes of all virtual nodes."""
        self._owners = [nodes[point] for point in self.points]
        self._owners.append(self._owners[0])  # past the last virtual node comes the first

    def host_of(self, actor_id: str) -> str:
        """The address of the host that an actor lives on."""
        return self.owner(_hash(actor_id))

    def hosts_of(self, actor_ids: Iterable[str]) -> Counter[str]:
        """Address -> how many of the actors live there; a host without any counts 0."""
        counts = Counter(dict.fromkeys(self.addresses, 0))
        counts.update(map(self.host_of, actor_ids))
        return counts

    def shares(self) -> dict[str, float]:
        """Address -> share of all conceivable ids, exactly; the sum is 1."""
        lengths = dict.fromkeys(self.addresses, 0)
        before = self.points[-1] - _CIRCLE
        for point, owner in zip(self.points, self._owners, strict=False):
            lengths[owner] += point - before
            before = point
        return {address: length / _CIRCLE for address, length in lengths.items()}

    def moved(self, after: "Ring") -> float:
        """Share of all conceivable ids that have another host in ``after``, exactly."""
        bounds = sorted({*self.points, *after.points})
        bounds.insert(0, bounds[-1] - _CIRCLE)
        # Between two neighbours of both rings' virtual nodes all ids have the same host in each of them.
        moved = sum(end - start for start, end in pairwise(bounds) if self.owner(end) != after.owner(end))
        return moved / _CIRCLE

    def owner(self, point: int) -> str:
        """The address of the host that a hash falls to."""
        return self._owners[bisect_left(self.points, point)]


@dataclass(frozen=True)
class Spread:
    """One quantity over many random rings."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: Collection[float]) -> "Spread":
        """Of at least one value."""
        return cls(min(values), median(values), max(values))


@dataclass(frozen=True)
class Skew:
    """How uneven the ring of some hosts is, whatever their addresses. 1.0 is a host's ideal share, 1/N."""

    hosts: int
    fullest: Spread
    """The most loaded host of a ring against the ideal: 1.2 is a fifth more than its part."""
    emptiest: Spread
    """The least loaded host of a ring against the ideal."""


@dataclass(frozen=True)
class Move:
    """What a change of the number of hosts moves, whatever their addresses. Those that stay keep their addresses."""

    before: int
    after: int
    moved: Spread
    """Share of the ids that get another host."""


def predicted_skew(hosts: int, rings: int = RINGS, seed: int = 0) -> Skew:
    """The skew to expect of ``hosts`` hosts: of ``rings`` rings with random addresses."""
    shares = [Ring(addresses).shares().values() for addresses in _random_addresses(hosts, rings, seed)]
    return Skew(
        hosts,
        fullest=Spread.of([max(share) * hosts for share in shares]),
        emptiest=Spread.of([min(share) * hosts for share in shares]),
    )


def predicted_move(before: int, after: int, rings: int = RINGS, seed: int = 0) -> Move:
    """The share of ids to move when ``before`` hosts become ``after``: of ``rings`` rings with random addresses."""
    moved = [
        Ring(addresses[:before]).moved(Ring(addresses[:after]))
        for addresses in _random_addresses(max(before, after), rings, seed)
    ]
    return Move(before, after, Spread.of(moved))


def predicted_shares(addresses: Iterable[str]) -> dict[str, float]:
    """Address -> share of the actors to expect there, for hosts that are known."""
    return Ring(addresses).shares()


def predicted_moved(before: Iterable[str], after: Iterable[str], ids: Collection[str] | None = None) -> float:
    """Share of the actors to move when the hosts ``before`` become ``after``: of all ids, or of the ones given.

    Raises:
        ValueError: there are no hosts before or after, or no ids.
    """
    old, new = Ring(before), Ring(after)
    if ids is None:
        return old.moved(new)
    if not ids:
        raise ValueError("no ids: leave them out for the share of all")
    return sum(old.host_of(actor_id) != new.host_of(actor_id) for actor_id in ids) / len(ids)


def _random_addresses(hosts: int, rings: int, seed: int) -> Iterable[Sequence[str]]:
    if hosts < 1 or rings < 1:
        raise ValueError("hosts and rings are counted from 1")
    chance = random.Random(seed)  # noqa: S311 - a sample, no secret
    for _ in range(rings):
        numbers = chance.sample(range(1 << 24), hosts)
        yield [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:{_SIDECAR_PORT}" for n in numbers]


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode()).digest()[:8], "little")
