"""What the nodes have of the machine outside of their namespaces: network interfaces, and cgroups."""

import os
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations
from pathlib import Path
from typing import Final, NamedTuple

from cluster.bare import processes
from cluster.bare.layout import MACHINE_ADDRESS, NODES, Node
from cluster.shell import run, succeeds

_CGROUPS: Final = Path("/sys/fs/cgroup")
UNIFIED: Final = _CGROUPS / "cgroup.controllers"


class Place(NamedTuple):
    """Where links end: the machine, or a node."""

    name: str
    """Of the interface that leads there, in every other place."""
    address: IPv4Address
    pods: IPv4Network | None
    """The addresses that are behind it."""
    pid: int
    """A process in its network."""

    def ip(self, *arguments: str) -> list[str]:
        """The command line of ``ip`` in its network."""
        return ["nsenter", "--target", str(self.pid), "--net", "ip", *arguments]

    def interfaces(self) -> set[str]:
        """The names of its network's interfaces; none where the network has ended meanwhile."""
        try:
            lines = Path(f"/proc/{self.pid}/net/dev").read_text().splitlines()[2:]
        except OSError:
            return set()
        return {line.partition(":")[0].strip() for line in lines}


def connect() -> None:
    """Joins the machine and the nodes that run, each with each, where they are not joined.

    Every two have a pair of interfaces of their own: nothing on the way could filter what they say, as a bridge on the
    machine lets the machine's firewall do.
    """
    for one, other in combinations(_places(), 2):
        if other.name not in one.interfaces():
            ends = ["name", other.name, "netns", str(one.pid), "type", "veth"]
            run(["ip", "link", "add", *ends, "peer", "name", one.name, "netns", str(other.pid)])
        for here, there in ((one, other), (other, one)):
            for command in route(here, there):
                run(here.ip(*command))


def route(here: Place, there: Place) -> list[tuple[str, ...]]:
    """The arguments of ``ip`` that lead what is sent ``here`` over the link to ``there``."""
    link = ("dev", there.name)
    commands = [
        ("address", "replace", str(here.address), "peer", f"{there.address}/32", *link),
        ("link", "set", there.name, "up"),
    ]
    if there.pods:
        commands.append(("route", "replace", str(there.pods), "via", str(there.address), *link))
    return commands


def interfaces() -> list[str]:
    """The machine's interfaces that lead to a node; one goes when the network of its node goes."""
    return sorted({node.name for node in NODES} & _machine().interfaces())


def links(node: Node) -> list[Place]:
    """The places that have an interface to ``node``."""
    return [place for place in _places() if node.name in place.interfaces()]


def disconnect(node: Node) -> None:
    """Removes the links to ``node``, unless they are gone."""
    for place in links(node):
        succeeds(*place.ip("link", "delete", node.name))


def make_cgroups(name: str) -> None:
    """Makes a cgroup in every hierarchy: all that a node's kubelet keeps is below the one with the node's name.

    Two kubelets below one cgroup would take each other's pods for pods that are gone.
    """
    if UNIFIED.exists():
        for controller in UNIFIED.read_text().split():
            with suppress(OSError):  # not every controller can be shared; the kubelet says when it needs one
                (_CGROUPS / "cgroup.subtree_control").write_text(f"+{controller}")
        (_CGROUPS / name).mkdir(exist_ok=True)
        return
    for hierarchy in _hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group, which then can't hold a process
            if (group / setting).exists():
                (group / setting).write_text((hierarchy / setting).read_text())


def cgroups(names: Iterable[str]) -> list[Path]:
    """The cgroups of these names that exist, and all below them, the innermost first."""
    tops = [place / name for name in names for place in (_CGROUPS, *_hierarchies())]
    groups = {group for top in tops if top.exists() for group in (top, *top.rglob("*")) if group.is_dir()}
    return sorted(groups, key=lambda group: len(group.parts), reverse=True)


def remove_cgroups(name: str) -> None:
    """Removes the cgroups of this name. Their processes have ended; the kernel may need a moment to notice."""
    for group in cgroups([name]):
        with suppress(OSError):
            group.rmdir()


def _places() -> list[Place]:
    """The machine, and every node that has namespaces now."""
    found = processes.running()
    inits = [(node, found.get(processes.init(node).full_name)) for node in NODES]
    return [_machine(), *(Place(node.name, node.address, node.pods, init.pid) for node, init in inits if init)]


def _machine() -> Place:
    return Place("machine", MACHINE_ADDRESS, None, os.getpid())


def _hierarchies() -> list[Path]:
    # Names such as cpu,cpuacct are folders, and cpu a link to one.
    return [path for path in _CGROUPS.iterdir() if not path.is_symlink() and (path / "cgroup.procs").exists()]
