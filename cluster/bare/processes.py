"""The nodes' processes. The process table is the only record of what runs: each carries its name in its environment."""

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from cluster.bare.layout import HERE, PODS, SERVICES, Node
from cluster.bare.packages import unpacked
from cluster.errors import CommandError
from cluster.logs import show_end

START_SECONDS: Final = 10.0
STOP_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.05

NETWORK: Final = "/mnt/network"

_MARK: Final = "DACA_BARE_NODE"
_NAMESPACES: Final = ("--mount", "--net", "--ipc", "--pid")


@dataclass(frozen=True)
class Component:
    """A program that runs inside a node."""

    node: Node
    name: str
    command: tuple[str, ...]
    """The program's full path, then its arguments."""
    files: tuple[Path, ...] = ()
    """What it reads when it starts: when one of them changes, it must start again."""
    health: str = ""
    """What answers when it works: a URL, or ``unix:`` and where the node has the socket of a container runtime."""
    needed: bool = False
    """The other components need it when they start: only what is needed starts before it works."""
    outside: bool = False
    """It runs on the machine, and has the node's network at hand as the file :data:`NETWORK`."""

    @property
    def full_name(self) -> str:
        """Its name among the components of all nodes."""
        return f"{self.node.name}/{self.name}"

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.node.state / "log" / f"{self.name}.log"

    @property
    def recipe(self) -> str:
        """A hash of all that decides how it runs; the path of a binary changes with its version."""
        digest = hashlib.sha256("\0".join(self.command).encode())
        for file in self.files:
            digest.update(file.read_bytes() if file.exists() else b"")
        return digest.hexdigest()[:12]


class Process(NamedTuple):
    """A component that runs."""

    name: str
    """The component's full name."""
    pid: int
    recipe: str
    """That of the component as it was when this was started."""


def init(node: Node) -> Component:
    """The first process of a node's namespaces: it adopts and buries orphans, and everything ends with it."""
    return Component(node, "init", (str(unpacked() / "usr" / "bin" / "catatonit"), "-P"), (HERE / "node-init.sh",))


def running() -> dict[str, Process]:
    """What runs, by the component's full name."""
    found = {}
    for pid, mark in _marked():
        name, recipe, program = mark.split(" ", 2)
        # What a component starts inherits its environment, as containerd's shims do: only the program itself counts.
        with suppress(OSError):
            # Of some there is a variant for newer processors, with a suffix; they replace themselves by it.
            if str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(".avx2") == str(Path(program).resolve()):
                found[name] = Process(name, pid, recipe)
    return found


def strays(node: Node | None = None) -> list[int]:
    """Every process that belongs to ``node``, or to any, by process id; of containers only their shims."""
    return [pid for pid, mark in _marked() if node is None or mark.startswith(f"{node.name}/")]


def start_init(node: Node) -> Process:
    """Starts the node's namespaces; their network is empty."""
    component = init(node)
    catatonit, *_ = component.command
    script = ["sh", str(HERE / "node-init.sh"), str(node.state), catatonit, str(PODS), str(SERVICES)]
    _launch(component, ["unshare", *_NAMESPACES, "--fork", "--mount-proc", "--propagation", "slave", *script])
    return _started(component)


def start(component: Component, init: Process) -> None:
    """Starts ``component``; ``init`` is that of its node."""
    if component.outside:
        where = ["unshare", "--mount", "--", "sh", str(HERE / "node-internet.sh"), str(init.pid)]
    else:
        where = ["nsenter", "--target", str(init.pid), *_NAMESPACES, "--", "setsid", "--fork"]
    _launch(component, [*where, *component.command])
    _started(component)


def stop(process: Process) -> None:
    """Ends ``process``, at first politely, and waits until it is gone."""
    _signal(process.pid, signal.SIGTERM)
    if not _gone(process.pid, STOP_SECONDS):
        kill([process.pid])


def kill(pids: Sequence[int]) -> None:
    """Ends processes at once, and waits until they are gone.

    Raises:
        CommandError: one of them does not end.
    """
    for pid in pids:
        _signal(pid, signal.SIGKILL)
    for pid in pids:
        if not _gone(pid, STOP_SECONDS):
            raise CommandError(f"process {pid} of the bare node does not end, the kernel holds it: reboot the machine")


def _launch(component: Component, command: list[str]) -> None:
    component.log.parent.mkdir(parents=True, exist_ok=True)
    program, *_ = component.command
    path = f"{unpacked()}/usr/bin:{unpacked()}/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    with component.log.open("ab") as log:
        # The child of setsid belongs to nobody here: it outlives this command, and nobody has to wait for it.
        subprocess.run(
            ["setsid", "--fork", *command],
            env={"PATH": path, _MARK: f"{component.full_name} {component.recipe} {program}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            check=True,
        )


def _started(component: Component) -> Process:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process := running().get(component.full_name):
            return process
        time.sleep(POLL_SECONDS)
    show_end(component.log)
    raise CommandError(f"{component.full_name} does not start; all it said is in {component.log}")


def _marked() -> Iterator[tuple[int, str]]:
    prefix = f"{_MARK}=".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                for variable in (folder / "environ").read_bytes().split(b"\0"):
                    if variable.startswith(prefix):
                        yield int(folder.name), variable.removeprefix(prefix).decode()


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _gone(pid: int, within_seconds: float) -> bool:
    end = time.monotonic() + within_seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":  # ended; its parent has not asked yet
            return True
        time.sleep(POLL_SECONDS)
    return False
