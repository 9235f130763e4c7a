"""The placement view as rows: the same in the terminal, in Locust's web UI and as CSV."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from rich import box
from rich.table import Table as RichTable

from actor_load.placement.pods import SIDECAR
from actor_load.placement.rule import rule
from actor_load.record import Container, PlacementSample, Placer, PodSample


class Row(NamedTuple):
    """One actor type on one pod, or on a host of placement's table that no pod is known for."""

    pod: str
    """Empty where placement names a host that is none of the pods."""
    node: str
    state: str
    """``ready``, ``starting``, ``leaving`` or ``gone``; ``, not in the table`` where placement does not have it."""
    address: str
    """As placement's table has it; empty where it does not."""
    actor_type: str
    """Empty where a pod offers none."""
    active: int | None
    share: float | None
    """Of the active actors of its type."""
    ideal: float | None
    """An even share: one part in as many as placement has hosts of the type."""
    ring: float | None
    """The share that the rule gives this host, the ring or rendezvous: ``share`` comes near it with many actors."""
    rebalanced: int | None
    deactivated: int | None
    pending: int | None
    app: Container
    """What the app used: all containers but the sidecar."""
    sidecar: Container


def rows(sample: PlacementSample) -> list[Row]:
    """The pods of a sample by name, then hosts without a pod. Counters are those of the pod, over all types."""
    pods = {pod.ip: pod for pod in sample.pods if pod.ip}
    addresses = {host.address.rpartition(":")[0]: host.address for host in sample.hosts}
    offered = {host.address: host.actor_types for host in sample.hosts}
    rings = {
        kind: _shares(sample.placer, tuple(address for address, kinds in offered.items() if kind in kinds))
        for kind in {kind for kinds in offered.values() for kind in kinds}
    }
    totals = {kind: sum((pod.active_actors or {}).get(kind, 0) for pod in sample.pods) for kind in rings}

    def made(pod: PodSample | None, address: str, kind: str) -> Row:
        told = None if pod is None else pod.active_actors
        active = None if told is None or not kind else told.get(kind, 0)
        ring = rings.get(kind, {})
        return Row(
            pod=pod.name if pod else "",
            node=pod.node if pod else "",
            state=_state(pod, address),
            address=address,
            actor_type=kind,
            active=active,
            share=active / totals[kind] if active is not None and totals.get(kind) else None,
            ideal=1 / len(ring) if address in ring else None,
            ring=ring.get(address),
            rebalanced=pod.rebalanced if pod else None,
            deactivated=pod.deactivated if pod else None,
            pending=pod.pending_calls if pod else None,
            app=_sum(pod.containers.items() if pod else (), sidecar=False),
            sidecar=_sum(pod.containers.items() if pod else (), sidecar=True),
        )

    def all_rows() -> Iterator[Row]:
        for pod in sample.pods:
            address = addresses.get(pod.ip, "")
            kinds = sorted({*offered.get(address, ()), *(pod.active_actors or ())})
            yield from (made(pod, address, kind) for kind in kinds or [""])
        for host in sample.hosts:
            if host.address.rpartition(":")[0] not in pods:
                yield from (made(None, host.address, kind) for kind in host.actor_types)

    return list(all_rows())


COLUMNS: Final = (
    "pod",
    "node",
    "state",
    "actor type",
    "active",
    "share",
    "ring",
    "of ideal",
    "rebalanced",
    "deactivated",
    "pending",
    "app: cores, MiB",
    "sidecar: cores, MiB",
)
"""Titles of :func:`cells`."""


def cells(row: Row) -> list[str]:
    """A row as text; what is not known is a dash."""
    return [
        row.pod or f"({row.address})",
        row.node or "-",
        row.state,
        row.actor_type or "-",
        "-" if row.active is None else f"{row.active:,}",
        _percent(row.share),
        _percent(row.ring),
        f"{row.share / row.ideal:.2f}" if row.share is not None and row.ideal else "-",
        *("-" if count is None else f"{count:,}" for count in (row.rebalanced, row.deactivated, row.pending)),
        usage(row.app),
        usage(row.sidecar),
    ]


def usage(used: Container) -> str:
    """CPU in cores and memory in MiB: ``0.25, 104``."""
    cores = "-" if used.cpu_cores is None else f"{used.cpu_cores:.2f}"
    memory = "-" if used.memory_bytes is None else f"{used.memory_bytes / 2**20:,.0f}"
    return f"{cores}, {memory}"


def title(sample: PlacementSample) -> str:
    """One line that says what the table has as a whole."""
    version = "unknown" if sample.version is None else str(sample.version)
    table = "placed by the scheduler" if sample.placer == "scheduler" else f"placement table version {version}"
    active = sum(sum((pod.active_actors or {}).values()) for pod in sample.pods)
    hosts = sum(bool(host.actor_types) for host in sample.hosts)
    return f"{_counted(hosts, 'host')}, {_counted(active, 'active actor')}, {table}"


def table(sample: PlacementSample) -> RichTable:
    """A sample for a terminal, its problems below. Node and actor type stand above where all pods have the same."""
    found = [dict(zip(COLUMNS, cells(row), strict=True)) for row in rows(sample)]
    common = {
        name: found[0][name] for name in ("node", "actor type") if found and len({row[name] for row in found}) == 1
    }
    shown = RichTable(
        title="; ".join([title(sample), *(f"{name} {value}" for name, value in common.items())]),
        title_justify="left",
        title_style="bold",
        caption="\n".join(sample.problems) or None,
        caption_justify="left",
        caption_style="yellow",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    names = [name for name in COLUMNS if name not in common]
    for name in names:
        left = COLUMNS.index(name) < COLUMNS.index("active")
        # In a narrow terminal headings break, not names of pods.
        shown.add_column(name, justify="left" if left else "right", no_wrap=name == "pod", overflow="fold")
    for row in found:
        shown.add_row(*(row[name] for name in names))
    return shown


@lru_cache
def _shares(placer: Placer, addresses: tuple[str, ...]) -> dict[str, float]:
    """By the rule that places; hosts stay the same from sample to sample."""
    return rule(placer, addresses).shares()


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _state(pod: PodSample | None, address: str) -> str:
    if pod is None:
        return "gone"
    state = "leaving" if pod.leaving else "ready" if pod.ready else "starting"
    return state if address else f"{state}, not in the table"


def _sum(containers: Iterable[tuple[str, Container]], *, sidecar: bool) -> Container:
    found = [container for name, container in containers if (name == SIDECAR) is sidecar]
    cores = [container.cpu_cores for container in found if container.cpu_cores is not None]
    memory = [container.memory_bytes for container in found if container.memory_bytes is not None]
    return Container(cpu_cores=sum(cores) if cores else None, memory_bytes=sum(memory) if memory else None)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
