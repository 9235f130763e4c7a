"""What the report calls the pods."""

from typing import Final

from actor_load.palette import SERIES
from actor_load.record import PodSample, Record

MOST: Final = len(SERIES)
"""Pods that a chart tells apart; a long run with many rollouts has more, and adds the smaller ones up."""


def seen(record: Record) -> dict[str, list[tuple[float, PodSample]]]:
    """Every pod -> its samples with their times; in the order in which they came."""
    pods: dict[str, list[tuple[float, PodSample]]] = {}
    for sample in record.placement:
        for pod in sample.pods:
            pods.setdefault(pod.name, []).append((sample.at, pod))
    return pods


def short_names(record: Record) -> dict[str, str]:
    """Pod -> as much of the end of its name as tells it from the others."""
    names = list(seen(record))
    for parts in range(1, max((name.count("-") for name in names), default=0) + 1):
        short = {name: "-".join(name.split("-")[-parts:]) for name in names}
        if len(set(short.values())) == len(names):
            return short
    return {name: name for name in names}


def labels(record: Record) -> dict[str, str]:
    """Pod -> its label in charts: the short name, or the one that the smaller ones share where there are too many."""
    names = short_names(record)
    if len(names) <= MOST:
        return names
    most = {
        pod: max((sum((sample.active_actors or {}).values()) for _, sample in samples), default=0)
        for pod, samples in seen(record).items()
    }
    large = set(sorted(names, key=lambda pod: -most[pod])[: MOST - 1])
    return {pod: name if pod in large else f"{len(names) - len(large)} others" for pod, name in names.items()}
