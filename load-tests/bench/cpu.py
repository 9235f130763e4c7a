"""CPU time by process, from /proc: which processes belong to a system, what they are called, what they took.

What the kernel does outside of any process is not seen, nor is a process that comes and goes between two looks.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

PROC: Final = Path("/proc")
TICKS: Final = os.sysconf("SC_CLK_TCK")

OTHER: Final = "other"
MODULES: Final = {
    "chat_service": "chat-service",
    "agent_memory_service": "agent-memory-service",
    "offline_model": "model",
    "bench.peers": "peer",
}
"""What is run by ``python -m``."""
PROGRAMS: Final = {
    "redis-server": "Redis",
    "placement": "placement, scheduler",
    "scheduler": "placement, scheduler",
    "injector": "Dapr's other parts",
    "operator": "Dapr's other parts",
    "sentry": "Dapr's other parts",
    "kubelet": "Kubernetes",
    "kube-apiserver": "Kubernetes",
    "kube-controller-manager": "Kubernetes",
    "kube-scheduler": "Kubernetes",
    "kube-proxy": "Kubernetes",
    "etcd": "Kubernetes",
    "kine": "Kubernetes",
    "coredns": "Kubernetes",
    "containerd": "Kubernetes",
    "containerd-shim-runc-v2": "Kubernetes",
    "local-path-provisioner": "Kubernetes",
    "registry": "Kubernetes",
    "pasta": "Kubernetes",
    "pasta.avx2": "Kubernetes",
}
"""By the name of the program's file."""

_MODULE: Final = re.compile(r"\bpython\S*(?: \S+)*? -m (\S+)")
_APP_ID: Final = re.compile(r"--app-id[ =](\S+)")


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment."""

    parent: int
    command: str
    seconds: float
    """Of CPU that it has taken so far, user and system."""


Processes: TypeAlias = Mapping[int, Process]
Scope: TypeAlias = Callable[[Processes], set[int]]
"""The ids of those processes that are a system's."""


def look(proc: Path = PROC) -> dict[int, Process]:
    """All processes of this machine, as it is now."""
    found = {}
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            # The name, in parentheses, may have blanks and parentheses in it.
            name, _, rest = (folder / "stat").read_text(errors="replace").partition("(")[2].rpartition(")")
            fields = rest.split()
            words = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
            found[int(folder.name)] = Process(
                int(fields[1]), words or name, (int(fields[11]) + int(fields[12])) / TICKS
            )
    return found


def below(*roots: int) -> Scope:
    """``roots`` and all that they have started, however many steps away."""

    def scope(processes: Processes) -> set[int]:
        return _descendants(processes, roots)

    return scope


def nodes(proc: Path = PROC) -> Scope:
    """Those of the Kubernetes nodes on this machine: all that is in the container in which a kubelet runs.

    Also of kind and minikube: there, too, a node is a container, and its processes are in a namespace of their own.
    """

    def scope(processes: Processes) -> set[int]:
        kubelets = [pid for pid, process in processes.items() if _program(process.command) == "kubelet"]
        return _descendants(processes, {_container(processes, pid, proc) for pid in kubelets})

    return scope


def name_of(command: str) -> str:
    """What the process of a command line is called in the report."""
    if found := _MODULE.search(command):
        return MODULES.get(found[1], OTHER)
    program = _program(command)
    if program == "daprd":
        app_id = _APP_ID.search(command)
        return f"{app_id[1]}'s daprd" if app_id else "daprd"
    return PROGRAMS.get(program, OTHER)


def spent(before: Processes, after: Processes, scope: Scope) -> dict[str, float]:
    """Seconds of CPU between two looks, by name; what has ended meanwhile is not in it."""
    taken: Counter[str] = Counter()
    for pid in scope(after):
        earlier = before[pid].seconds if pid in before else 0.0
        taken[name_of(after[pid].command)] += after[pid].seconds - earlier  # type: ignore[assignment]
    return dict(taken)


def _program(command: str) -> str:
    # Redis and others write a title of their own over their command line: "redis-server *:6379", "nginx: master".
    return Path(command.partition(" ")[0]).name.rstrip(":")


def _descendants(processes: Processes, roots: Iterable[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in processes]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return found


def _container(processes: Processes, pid: int, proc: Path) -> int:
    """The first process of the container that ``pid`` is in; itself where it is in none."""
    while (parent := processes[pid].parent) in processes and _depth(parent, proc) > 1:
        pid = parent
    return pid


def _depth(pid: int, proc: Path) -> int:
    """In how many namespaces of processes it has an id; 1 is the machine's own."""
    with suppress(OSError):
        for line in (proc / str(pid) / "status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return len(line.split()) - 1
    return 1
