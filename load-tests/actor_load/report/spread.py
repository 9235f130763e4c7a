"""How actors were spread over the pods, against an even spread and against what Dapr's ring gives them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from math import sqrt
from typing import Final

from actor_load.placement.rule import rule
from actor_load.record import PlacementSample, Placer, Record

SETTLED_SECONDS: Final = 8.0
"""A table that placement had for less is one on the way to the next."""

FEWEST_ACTORS: Final = 50
"""A share of fewer is chance."""


@dataclass(frozen=True)
class PodShare:
    """One pod's part of the active actors."""

    pod: str
    actors: int
    share: float
    """0 to 1, as are the two below."""
    predicted: float
    """The part of the ring that belongs to it."""
    scatter: float
    """What chance adds or takes: two standard deviations of as many actors thrown onto the ring."""


@dataclass(frozen=True)
class Spread:
    """The active actors at the end of a time in which the same hosts were in placement's table."""

    started: float
    at: float
    pods: list[PodShare]

    @property
    def ideal(self) -> float:
        """The share of each pod if all had as much."""
        return 1 / len(self.pods)

    @property
    def skew(self) -> float:
        """The fullest pod against the ideal; 1.0 is an even spread."""
        return max(pod.share for pod in self.pods) / self.ideal

    @property
    def predicted_skew(self) -> float:
        """The same of the ring."""
        return max(pod.predicted for pod in self.pods) / self.ideal


def spreads(record: Record) -> list[Spread]:
    """One of each settled table with two hosts or more, in the order of time."""
    found = []
    for (placer, addresses), samples in _tables(record):
        if len(addresses) < 2 or samples[-1].at - samples[0].at < SETTLED_SECONDS:
            continue
        ring = rule(placer, addresses).shares()
        for sample in reversed(samples):
            if pods := _shares(sample, ring):
                found.append(Spread(samples[0].at, sample.at, pods))
                break
    return found


def _tables(record: Record) -> Iterator[tuple[tuple[Placer, frozenset[str]], list[PlacementSample]]]:
    """Samples in a row that have the same hosts, placed by the same part of Dapr."""
    for key, samples in groupby(record.placement, key=lambda sample: (sample.placer, _addresses(sample))):
        yield key, list(samples)


def _addresses(sample: PlacementSample) -> frozenset[str]:
    """Of the hosts that are pods under load."""
    ours = {pod.ip for pod in sample.pods}
    return frozenset(
        host.address for host in sample.hosts if host.actor_types and host.address.rpartition(":")[0] in ours
    )


def _shares(sample: PlacementSample, ring: dict[str, float]) -> list[PodShare]:
    """Empty where a pod did not say how many actors it has, or where all together have too few."""
    of_ip = {address.rpartition(":")[0]: predicted for address, predicted in ring.items()}
    pods = [pod for pod in sample.pods if pod.ip in of_ip]
    counts = {pod.name: sum(pod.active_actors.values()) for pod in pods if pod.active_actors is not None}
    total = sum(counts.values())
    if len(counts) < len(of_ip) or total < FEWEST_ACTORS:
        return []
    return [
        PodShare(
            pod.name,
            counts[pod.name],
            counts[pod.name] / total,
            of_ip[pod.ip],
            2 * sqrt(of_ip[pod.ip] * (1 - of_ip[pod.ip]) / total),
        )
        for pod in pods
    ]
