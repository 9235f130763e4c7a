"""Starts, mends, shows and removes the nodes."""

import os
import ssl
import time
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import grpc

from cluster import binaries
from cluster.bare import images, machine, membership, packages, pki, processes
from cluster.bare.components import MOUNT_POINTS, components, configure
from cluster.bare.layout import HERE, NODES, STATE, Node, present
from cluster.bare.processes import Component, Process
from cluster.cache import exclusive
from cluster.errors import CommandError
from cluster.logs import show_end
from cluster.shell import run
from cluster.steps import say, step

HEALTHY_SECONDS: Final = 60.0
MEND_SECONDS: Final = 10.0
GONE_SECONDS: Final = 20.0
ANSWER_SECONDS: Final = 2.0
POLL_SECONDS: Final = 0.1

_DEAD: Final = "does not run"

# Health is asked for on the nodes' own addresses, which a proxy of the environment does not reach. Two components
# present a certificate that they made up when they started; nothing secret is sent.
_UNVERIFIED: Final = ssl._create_unverified_context()  # noqa: S323, SLF001
_OPENER: Final = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_UNVERIFIED)
)


class ComponentStatus(NamedTuple):
    """How one component of a node is; as text, what there is to say of it."""

    name: str
    """The node's name, and the component's."""
    running: bool
    """It lives and answers, and is configured as it would be now."""
    detail: str

    def __str__(self) -> str:
        return self.detail


def up(kubeconfig: Path, nodes: int | None = None) -> None:
    """Brings the nodes up, or mends them: then all components run as configured, and all nodes are Ready.

    Before it starts it says what it is going to install and build. A node that is new joins the others, and one that is
    too many leaves them, while their pods go on.

    ``kubeconfig`` is written; it has one context, that of a cluster administrator. ``nodes`` is how many there shall
    be; without it, as many as there are, or one.

    Raises:
        CommandError: this machine can't run the nodes, a component does not come up (its log has been shown), or the
            pods of a node that shall leave do not move.
    """
    if nodes is not None and not 1 <= nodes <= len(NODES):
        raise CommandError(f"NODES={nodes} is not between 1 and {len(NODES)}", exit_code=2)
    if problems := packages.preflight():
        raise CommandError("the bare node cannot run here: " + "; ".join(problems))
    for line in packages.plan():
        say(f"first: {line}")
    with exclusive():
        packages.install()
        binaries.build(binaries.NODE)
        wanted = NODES[:nodes] if nodes else present()
        # One that shall leave has to be there for it: its pods go by themselves.
        members = max(wanted, present(), key=len)
        for node in members:
            configure(node)
        pki.make(members)
        born = _live(members)
        _start(members)
        images.push_base_images()
        with step(f"{', '.join(node.name for node in members)}: Ready"):
            membership.wait_until_ready(members, born)
            membership.wait_until_noticed(born)
        for node in reversed(members[len(wanted) :]):
            with step(f"{node.name} has left, its pods are elsewhere"):
                _remove(node)
    kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_bytes(pki.kubeconfig("admin").read_bytes())


def down() -> None:
    """Removes the nodes and all that they have written. The cache stays. Does nothing where there is no node.

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


def kill(name: str) -> None:
    """Ends all that runs on a node at once, as a power cut does; :func:`up` starts it again.

    Raises:
        CommandError: there is no such node.
    """
    found = {node.name: node for node in present()}
    if name not in found:
        raise CommandError(f"there is no node {name}, but {', '.join(found) or 'none'}", exit_code=2)
    with exclusive():
        _end(found[name])


def status() -> list[ComponentStatus]:
    """Of each node the init process that holds its namespaces, and its components, in the order in which they start."""
    found = processes.running()
    return [
        _status(component, found.get(component.full_name), found.get(init.full_name))
        for node in present()
        for init in [processes.init(node)]
        for component in (init, *components(node))
    ]


def leftovers() -> list[str]:
    """All there is of the nodes outside of the cache; empty after :func:`down`."""
    return [
        *(f"process {pid}" for pid in processes.strays()),
        *(f"interface {name}" for name in machine.interfaces()),
        *(f"cgroup {group}" for group in machine.cgroups(node.name for node in NODES)),
        *(f"mount {mount}" for mount in _mounts()),
        *([f"folder {STATE}"] if STATE.exists() else []),
    ]


def _live(nodes: Iterable[Node]) -> dict[Node, datetime]:
    """Gives every node namespaces that are connected with the others'; those that were made anew, and when."""
    # What runs by a name that no component has is of another version of this program.
    names = {component.full_name for node in NODES for component in (processes.init(node), *components(node))}
    processes.kill([process.pid for name, process in processes.running().items() if name not in names])
    found = processes.running()
    born = {}
    for node in nodes:
        init = processes.init(node)
        process = found.get(init.full_name)
        if process is None or process.recipe != init.recipe:
            # What belongs to another life of the node is of no use; a kubelet waits for every old cgroup in vain.
            _end(node)
            machine.make_cgroups(node.name)
            born[node] = datetime.now(UTC)
            with step(f"{node.name} has namespaces of its own"):
                processes.start_init(node)
    machine.connect()
    return born


def _clear() -> None:
    """Ends the processes of all nodes at once, as the end of the machine does, and what they had with them."""
    processes.kill(processes.strays())
    for node in NODES:
        _end(node)


def _end(node: Node) -> None:
    """Ends the node's processes, and waits until the kernel has cleared away what they had."""
    processes.kill(processes.strays(node))
    end = time.monotonic() + GONE_SECONDS
    while (machine.links(node) or machine.cgroups([node.name])) and time.monotonic() < end:
        machine.disconnect(node)
        machine.remove_cgroups(node.name)
        time.sleep(POLL_SECONDS)


def _remove(node: Node) -> None:
    """Takes a node out of the cluster. Its folder goes last: what was interrupted is done again."""
    membership.drain(node)
    _end(node)
    membership.forget(node)
    run(["rm", "--recursive", "--force", "--one-file-system", node.state])


def _start(nodes: Iterable[Node]) -> None:
    """Starts what does not run, does not answer, or is not configured as it would be now."""
    found = processes.running()
    inits = {node: found[processes.init(node).full_name] for node in nodes}
    every = [component for node in nodes for component in components(node)]
    for needed in (True, False):
        started = []
        for component in (component for component in every if component.needed == needed):
            init, process = inits[component.node], found.get(component.full_name)
            if process and process.recipe == component.recipe and _answers(component, init, MEND_SECONDS):
                continue
            if process:
                processes.stop(process)
            processes.start(component, init)
            started.append(component)
        _wait_until_healthy(started, inits)
        if needed:
            membership.kubectl("apply", "--filename", HERE / "addons.yaml")


def _wait_until_healthy(started: list[Component], inits: Mapping[Node, Process]) -> None:
    if not started:
        return
    with step(f"{_named(started)}: running"):
        end = time.monotonic() + HEALTHY_SECONDS
        while problems := [
            (component, problem) for component in started if (problem := _problem(component, inits[component.node]))
        ]:
            # The one that ended is the cause, those that wait for it are not.
            dead = [(component, problem) for component, problem in problems if problem == _DEAD]
            if dead or time.monotonic() > end:
                component, problem = (dead or problems)[0]
                show_end(component.log)
                raise CommandError(f"{component.full_name} {problem}; its log: {component.log}")
            time.sleep(POLL_SECONDS)


def _named(started: Iterable[Component]) -> str:
    """The components by node: ``daca-bare: kubelet, kube-proxy; daca-bare-2: kubelet``."""
    by_node: dict[str, list[str]] = {}
    for component in started:
        by_node.setdefault(component.node.name, []).append(component.name)
    return "; ".join(f"{node}: {', '.join(names)}" for node, names in by_node.items())


def _answers(component: Component, init: Process, within_seconds: float) -> bool:
    end = time.monotonic() + within_seconds
    while (problem := _problem(component, init)) and problem != _DEAD and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    return problem is None


def _problem(component: Component, init: Process | None) -> str | None:
    """What is wrong with a component that was started, as the rest of a sentence."""
    if init is None or component.full_name not in processes.running():
        return _DEAD
    try:
        if component.health.startswith("unix:"):
            _ask_runtime(Path(f"/proc/{init.pid}/root") / component.health.removeprefix("unix:/"))
        elif component.health:
            with _OPENER.open(component.health, timeout=ANSWER_SECONDS):
                pass
    except OSError as error:
        return f"does not answer ({error})"
    return None


def _ask_runtime(socket: Path) -> None:
    """Asks a container runtime for its version. It listens at once, and answers when it knows its containers again."""
    with grpc.insecure_channel(f"unix:{socket}") as channel:  # type: ignore[no-untyped-call]
        try:
            channel.unary_unary("/runtime.v1.RuntimeService/Version")(b"", timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            raise OSError("not ready yet") from error


def _status(component: Component, process: Process | None, init: Process | None) -> ComponentStatus:
    problem = _problem(component, init)
    if process and problem is None and process.recipe != component.recipe:
        problem = "runs as it was configured before: `make up` starts it anew"
    detail = problem or f"runs, process {process.pid if process else 0}"
    return ComponentStatus(component.full_name, problem is None, detail)


def _mounts() -> list[str]:
    """Mounts below the state that the machine sees. Those of a node are in its namespace, and end with it."""
    fields = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [point for point in (field[4] for field in fields) if Path(point).is_relative_to(STATE)]
