"""Starts, mends, shows and removes the bare node."""

import os
import socket
import ssl
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from cluster import binaries
from cluster.bare import images, machine, packages, pki, processes
from cluster.bare.components import API_SERVER, MOUNT_POINTS, components, configure
from cluster.bare.layout import HERE, NAME, STATE
from cluster.bare.processes import Component, Process
from cluster.cache import exclusive
from cluster.errors import CommandError
from cluster.logs import show_end
from cluster.shell import run
from cluster.steps import say, step

HEALTHY_SECONDS: Final = 60.0
MEND_SECONDS: Final = 10.0
READY_SECONDS: Final = 60.0
GONE_SECONDS: Final = 20.0
ANSWER_SECONDS: Final = 2.0
POLL_SECONDS: Final = 0.1

_DEAD: Final = "does not run"
_NODE_CONDITIONS: Final = 'jsonpath={range .status.conditions[?(@.status!="False")]}{.message}{"; "}{end}'

# Health is asked for on the node's own addresses, which a proxy of the environment does not reach. Two components
# present a certificate that they made up when they started; nothing secret is sent.
_UNVERIFIED: Final = ssl._create_unverified_context()  # noqa: S323, SLF001
_OPENER: Final = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_UNVERIFIED)
)


class ComponentStatus(NamedTuple):
    """How one component of the node is; as text, what there is to say of it."""

    name: str
    running: bool
    """It lives and answers, and is configured as it would be now."""
    detail: str

    def __str__(self) -> str:
        return self.detail


def up(kubeconfig: Path, nodes: int | None = None) -> None:  # noqa: ARG001
    """Brings the node up, or mends it: then all components run as configured, and the node is Ready.

    Before it starts it says what it is going to install and build.

    ``kubeconfig`` is written; it has one context, that of a cluster administrator.

    Raises:
        CommandError: this machine can't run the node, or a component does not come up (its log has been shown).
    """
    if problems := packages.preflight():
        raise CommandError("the bare node cannot run here: " + "; ".join(problems))
    for line in packages.plan():
        say(f"first: {line}")
    with exclusive():
        packages.install()
        binaries.build(binaries.NODE)
        configure()
        pki.make()
        node = _node()
        _start(node)
        images.push_base_images()
        with step(f"node {NAME} is Ready"):
            _wait_until_ready()
    kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_bytes(pki.kubeconfig("admin").read_bytes())


def down() -> None:
    """Removes the node and all that it has written. The cache stays. Does nothing where there is no node.

    Raises:
        CommandError: something is still there.
    """
    if os.geteuid() != 0 and STATE.exists():
        raise CommandError("the bare node belongs to root: run make as root")
    with exclusive():
        _clear()
        if found := _mounts():
            raise CommandError(f"{found[0]} is a mount of somebody else: unmount it, then `make down` again")
        run(["rm", "--recursive", "--force", "--one-file-system", STATE])
        for folder in (STATE.parent, *MOUNT_POINTS):
            with suppress(OSError):  # it is gone, or somebody else's and not empty
                folder.rmdir()
        if left := leftovers():
            raise CommandError("left behind: " + "; ".join(left))


def status() -> list[ComponentStatus]:
    """The init process that holds the node's namespaces, and every component, in the order in which they start."""
    found = processes.running()
    init = processes.init()
    return [_status(component, found.get(component.name), found.get(init.name)) for component in (init, *components())]


def leftovers() -> list[str]:
    """All there is of a node outside of the cache; empty after :func:`down`."""
    return [
        *(f"process {pid}" for pid in processes.strays()),
        *([f"interface {NAME}"] if machine.interface() else []),
        *(f"cgroup {group}" for group in machine.cgroups()),
        *(f"mount {mount}" for mount in _mounts()),
        *([f"folder {STATE}"] if STATE.exists() else []),
    ]


def _node() -> Process:
    """The node's namespaces, connected to the machine; made, if need be."""
    init = processes.init()
    node = processes.running().get(init.name)
    if node is None or node.recipe != init.recipe:
        # What belongs to another life of the node is of no use; a kubelet waits for every old cgroup in vain.
        _clear()
        machine.make_cgroups()
        with step("the node has namespaces of its own"):
            node = processes.start_init()
    machine.connect(node)
    return node


def _clear() -> None:
    """Ends the node's processes, and waits until the kernel has cleared away what they had."""
    processes.kill(processes.strays())
    end = time.monotonic() + GONE_SECONDS
    while (machine.interface() or machine.cgroups()) and time.monotonic() < end:
        machine.remove_interface()
        machine.remove_cgroups()
        time.sleep(POLL_SECONDS)


def _start(node: Process) -> None:
    """Starts what does not run, does not answer, or is not configured as it would be now."""
    found = processes.running()
    started: list[Component] = []
    for component in components():
        process = found.get(component.name)
        if process and process.recipe == component.recipe and _answers(component, node, MEND_SECONDS):
            continue
        if process:
            processes.stop(process)
        processes.start(component, node)
        started.append(component)
        if component.name == API_SERVER:
            _wait_until_healthy(started, node)
            started.clear()
    _kubectl("apply", "--filename", HERE / "addons.yaml")
    _wait_until_healthy(started, node)


def _kubectl(*arguments: str | Path) -> str:
    """Runs kubectl on the node as its administrator; its output."""
    return run([binaries.kubectl(), "--kubeconfig", pki.kubeconfig("admin"), *arguments])


def _wait_until_healthy(started: list[Component], node: Process) -> None:
    if not started:
        return
    with step(f"{', '.join(component.name for component in started)}: running"):
        end = time.monotonic() + HEALTHY_SECONDS
        while problems := [(component, problem) for component in started if (problem := _problem(component, node))]:
            # The one that ended is the cause, those that wait for it are not.
            dead = [(component, problem) for component, problem in problems if problem == _DEAD]
            if dead or time.monotonic() > end:
                component, problem = (dead or problems)[0]
                show_end(component.log)
                raise CommandError(f"{component.name} of the bare node {problem}; its log: {component.log}")
            time.sleep(POLL_SECONDS)


def _answers(component: Component, node: Process, within_seconds: float) -> bool:
    end = time.monotonic() + within_seconds
    while (problem := _problem(component, node)) and problem != _DEAD and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    return problem is None


def _problem(component: Component, node: Process | None) -> str | None:
    """What is wrong with a component that was started, as the rest of a sentence."""
    if node is None or component.name not in processes.running():
        return _DEAD
    try:
        if component.health.startswith("unix:"):
            _connect(Path(f"/proc/{node.pid}/root") / component.health.removeprefix("unix:/"))
        elif component.health:
            with _OPENER.open(component.health, timeout=ANSWER_SECONDS):
                pass
    except OSError as error:
        return f"does not answer ({error})"
    return None


def _connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(str(path))


def _status(component: Component, process: Process | None, node: Process | None) -> ComponentStatus:
    problem = _problem(component, node)
    if process and problem is None and process.recipe != component.recipe:
        problem = "runs as it was configured before: `make up` starts it anew"
    return ComponentStatus(component.name, problem is None, problem or f"runs, process {process.pid if process else 0}")


def _wait_until_ready() -> None:
    end = time.monotonic() + READY_SECONDS
    ready = ["wait", "--for=condition=Ready", f"node/{NAME}", "--timeout=5s"]
    while time.monotonic() < end:
        with suppress(CommandError):
            _kubectl(*ready)
            return
        time.sleep(POLL_SECONDS)
    show_end(STATE / "log" / "kubelet.log")
    raise CommandError(f"node {NAME} is not Ready: {_kubectl('get', 'node', NAME, '--output', _NODE_CONDITIONS)}")


def _mounts() -> list[str]:
    """Mounts below the state that the machine sees. The node's own are in its namespace, and end with it."""
    fields = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [point for point in (field[4] for field in fields) if Path(point).is_relative_to(STATE)]
