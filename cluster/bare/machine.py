"""What the node has of the machine outside of its namespaces: one network interface, and cgroups."""

from contextlib import suppress
from pathlib import Path
from typing import Final

from cluster.bare.layout import LINK_PREFIX, MACHINE_ADDRESS, NAME, NODE_ADDRESS
from cluster.bare.processes import Process
from cluster.shell import run, succeeds

_CGROUPS: Final = Path("/sys/fs/cgroup")
_UNIFIED: Final = _CGROUPS / "cgroup.controllers"


def connect(node: Process) -> None:
    """Joins the machine and the node's network by a pair of interfaces, unless they are joined."""
    if not interface():
        run(["ip", "link", "add", NAME, "type", "veth", "peer", "name", "eth0", "netns", str(node.pid)])
    run(["ip", "address", "replace", f"{MACHINE_ADDRESS}/{LINK_PREFIX}", "dev", NAME])
    run(["ip", "link", "set", NAME, "up"])
    in_node = ["nsenter", "--target", str(node.pid), "--net", "ip"]
    run([*in_node, "address", "replace", f"{NODE_ADDRESS}/{LINK_PREFIX}", "dev", "eth0"])
    run([*in_node, "link", "set", "eth0", "up"])


def interface() -> bool:
    """Whether the machine's end of the pair is there; it goes when the node's network goes."""
    return Path(f"/sys/class/net/{NAME}").exists()


def remove_interface() -> None:
    """Removes the pair, unless it is gone."""
    if interface():
        succeeds("ip", "link", "delete", NAME)


def make_cgroups() -> None:
    """Makes the cgroup that the kubelet keeps all pods below, in every hierarchy."""
    if _UNIFIED.exists():
        for controller in _UNIFIED.read_text().split():
            with suppress(OSError):  # not every controller can be shared; the kubelet says when it needs one
                (_CGROUPS / "cgroup.subtree_control").write_text(f"+{controller}")
        (_CGROUPS / NAME).mkdir(exist_ok=True)
        return
    for hierarchy in _hierarchies():
        group = hierarchy / NAME
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group, which then can't hold a process
            if (group / setting).exists():
                (group / setting).write_text((hierarchy / setting).read_text())


def cgroups() -> list[Path]:
    """The node's cgroups that exist, the innermost first."""
    tops = [_CGROUPS / NAME, *(hierarchy / NAME for hierarchy in _hierarchies())]
    groups = {group for top in tops if top.exists() for group in (top, *top.rglob("*")) if group.is_dir()}
    return sorted(groups, key=lambda group: len(group.parts), reverse=True)


def remove_cgroups() -> None:
    """Removes the node's cgroups. Their processes have ended; the kernel may need a moment to notice."""
    for group in cgroups():
        with suppress(OSError):
            group.rmdir()


def _hierarchies() -> list[Path]:
    # Names such as cpu,cpuacct are folders, and cpu a link to one.
    return [path for path in _CGROUPS.iterdir() if not path.is_symlink() and (path / "cgroup.procs").exists()]
