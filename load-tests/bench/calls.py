"""What a turn asks of others: requests that sidecars and Redis have counted themselves."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

Counts: TypeAlias = Counter[str]
Counters: TypeAlias = Callable[[], Counts]
"""What has been counted so far, by what it is."""

METRICS: Final = {
    "dapr_http_server_request_count": ("method", "path", "status"),
    "dapr_grpc_io_server_completed_rpcs": ("grpc_server_method", "grpc_server_status"),
    "dapr_component_state_count": ("component", "operation"),
    "dapr_component_pubsub_egress_count": ("component",),
    "dapr_component_pubsub_ingress_count": ("component", "process_status"),
}
"""Counters of a sidecar -> the labels by which they are told apart."""
SHOWN: Final = 0.005
"""What there is less of in a turn has nothing to do with it."""

_SAMPLE: Final = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
_BYTES: Final = re.compile(r"^total_net_(in|out)put_bytes:(\d+)", re.MULTILINE)
_COMMAND: Final = re.compile(r"^cmdstat_(\S+?):calls=(\d+)", re.MULTILINE)


def of_sidecar(name: str, metrics: str) -> Counts:
    """Counts from the metrics of one sidecar, in Prometheus' text format."""
    counted: Counts = Counter()
    for metric, written, value in _SAMPLE.findall(metrics):
        if metric in METRICS:
            labels = dict(_LABEL.findall(written))
            what = " ".join(labels[label] for label in METRICS[metric] if labels.get(label))
            counted[f"{name} {metric.removeprefix('dapr_')} {what}"] += int(float(value))
    return counted


def of_redis(info: str) -> Counts:
    """Counts from what Redis says to ``INFO all``: its commands, and bytes in and out."""
    counted: Counts = Counter({f"Redis command {name}": int(calls) for name, calls in _COMMAND.findall(info)})
    counted.update({f"Redis bytes {way}": int(number) for way, number in _BYTES.findall(info)})
    return counted


def together(counters: Iterable[Counters]) -> Counts:
    """The counts of several."""
    return sum((counter() for counter in counters), Counts())


def per_turn(before: Mapping[str, int], after: Mapping[str, int], turns: int) -> dict[str, float]:
    """What came between two counts, for each turn; what is too seldom is left out."""
    asked = {what: (count - before.get(what, 0)) / turns for what, count in after.items()}
    return {what: round(number, 3) for what, number in sorted(asked.items()) if number >= SHOWN}
