"""Runs a command in namespaces of its own, where an engine works. Nothing of it outlives the command."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cluster import binaries, debian
from cluster.bare import machine, packages
from cluster.cache import CACHE, exclusive
from cluster.deploy import DAPR_REPOSITORY
from cluster.errors import CommandError
from cluster.kind_on_podman import images
from cluster.kind_on_podman.layout import (
    ADDRESS,
    GATEWAY,
    HERE,
    LOCK,
    MODULES,
    NAME,
    NAMESERVER,
    PODMAN,
    RUN,
    STORAGE,
)
from cluster.shell import run as run_tool
from cluster.steps import step
from cluster.versions import ROOT, VERSIONS

GONE_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.05
KEPT: Final = (".evidence", "load-results")
"""Folders of the checkout that come back from a command's own view of it."""

_NAMESPACES: Final = ("--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "slave")
_BUNDLE: Final = Path("/etc/ssl/certs/ca-certificates.crt")
# When this command ends, however it does, what it has started ends, too.
_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "KILL")


def run(command: Sequence[str]) -> int:
    """Runs ``command`` with podman, kind, helm, kubectl and skaffold in PATH; its exit code.

    It works on a view of this checkout of its own: what it writes there is gone afterwards, but for :data:`KEPT`.

    Raises:
        CommandError: this machine can't run it, or something is left behind.
    """
    if problems := _problems():
        raise CommandError("kind on Podman cannot run here: " + "; ".join(problems))
    if not debian.unpacked(PODMAN).exists():
        with exclusive(), step(f"unpacked: {', '.join(PODMAN)}"):
            debian.unpack(PODMAN, with_what_they_need=True)
    images.make()
    with _alone(), _modules():
        _clear()
        try:
            _write_settings()
            return _run(command)
        finally:
            for name in KEPT:
                if (RUN / "upper" / name).exists():
                    shutil.copytree(RUN / "upper" / name, ROOT / name, dirs_exist_ok=True)
            _clear()


def kind_config(text: str, image: str) -> str:
    """cluster/kind.yaml with the node image ``image``: nobody can make one here that has the digest it names."""
    lines = text.splitlines(keepends=True)
    return "".join(
        f"{line[: line.index('image:')]}image: {image}\n" if line.strip().startswith("image:") else line
        for line in lines
    )


def settings(podman: Path, bare: Path) -> dict[str, str]:
    """Files of the run's folder ``etc`` by their names; the two have the packages unpacked."""
    # What pip and apt are set up for on this machine holds in builds, too.
    volumes = [f"{path}:{path}:ro" for path in ("/etc/ssl/certs", "/etc/pip.conf") if Path(path).exists()]
    scratch = RUN / "tmp"
    runc = bare / "usr" / "sbin" / "runc"
    return {
        "containers.conf": f"""[containers]
cgroupns = "private"
volumes = {json.dumps(volumes)}
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
conmon_path = ["{podman}/usr/bin/conmon"]
helper_binaries_dir = ["{podman}/usr/lib/podman"]
image_copy_tmp_dir = "{scratch}"
[engine.runtimes]
runc = ["{runc}"]
[network]
network_backend = "netavark"
network_config_dir = "{RUN}/networks"
""",
        "storage.conf": f"""[storage]
driver = "overlay"
graphroot = "{STORAGE}"
runroot = "/run/containers/storage"
[storage.options]
additionalimagestores = ["{CACHE}/buildah/images"]
""",
        "registries.conf": 'short-name-mode = "permissive"\nunqualified-search-registries = ["docker.io"]\n',
        "resolv.conf": f"nameserver {NAMESERVER}\n",
        "hosts": f"127.0.0.1 {_repository_host()}\n{Path('/etc/hosts').read_text()}",
    }


def released(values: str, version: str) -> str:
    """The values of Dapr's chart as they are when it is published: its sources have the tag of every night's build."""
    return values.replace("tag: 'edge'", f"tag: '{version}'")


def _repository_host() -> str:
    return DAPR_REPOSITORY.split("/")[2]


def _problems() -> list[str]:
    problems = packages.preflight()
    if machine.UNIFIED.exists():
        problems.append("it has been tried with cgroups of version 1 only, and this machine has version 2")
    return problems


@contextmanager
def _alone() -> Iterator[None]:
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandError("another command with kind on Podman runs: let it end first") from error
        yield


@contextmanager
def _modules() -> Iterator[None]:
    made = not MODULES.exists()
    MODULES.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if made:
            MODULES.rmdir()


def _clear() -> None:
    """Ends what a run has left running, which is none unless it was killed, and removes what it has written.

    Raises:
        CommandError: something is still there.
    """
    end = time.monotonic() + GONE_SECONDS
    while (left := machine.cgroups([NAME])) and time.monotonic() < end:
        for group in left:
            for pid in _members(group):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        machine.remove_cgroups(NAME)
        time.sleep(POLL_SECONDS)
    if left:
        raise CommandError(f"left behind: cgroup {left[0]}")
    run_tool(["rm", "--recursive", "--force", "--one-file-system", RUN])


def _members(group: Path) -> list[int]:
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    except OSError:  # it has gone meanwhile
        return []


def _write_settings() -> None:
    podman, bare = debian.unpacked(PODMAN), packages.unpacked()
    for name in (
        "bin",
        "docker",
        "etc",
        "helm3",
        "home/.config/containers",
        "networks",
        "tmp",
        "upper/cluster",
        "work",
    ):
        (RUN / name).mkdir(parents=True)
    for name, text in settings(podman, bare).items():
        (RUN / "etc" / name).write_text(text)
    policy = RUN / "home" / ".config" / "containers" / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')
    node = images.node_image(images.cluster_images()).reference
    config = RUN / "upper" / "cluster" / "kind.yaml"
    config.write_text(kind_config((ROOT / "cluster" / "kind.yaml").read_text(), node))
    for name, program in {
        "podman": podman / "usr" / "bin" / "podman",
        "kind": binaries.kind(),
        "helm": binaries.helm(),
        "kubectl": binaries.kubectl(),
        "skaffold": binaries.skaffold(),
    }.items():
        (RUN / "bin" / name).symlink_to(program)
    (RUN / "helm3" / "helm").symlink_to(binaries.helm3())
    # As Debian's podman-docker has it.
    docker = RUN / "docker" / "docker"
    docker.write_text('#!/bin/sh\nexec podman "$@"\n')
    docker.chmod(0o755)
    _write_repository()


def _write_repository() -> None:
    """Dapr's chart as its repository has it, which :func:`_run` serves to those who ask for the repository."""
    folder = RUN / "charts" / DAPR_REPOSITORY.split("/", 3)[3]
    folder.mkdir(parents=True)
    version = VERSIONS["DAPR_VERSION"]
    with tempfile.TemporaryDirectory(dir=RUN) as scratch:
        chart = shutil.copytree(binaries.dapr_chart(), Path(scratch) / "dapr")
        values = chart / "values.yaml"
        values.write_text(released(values.read_text(), version))
        versions = ("--version", version, "--app-version", version)
        run_tool([binaries.helm(), "package", chart, *versions, "--destination", folder])
    run_tool([binaries.helm(), "repo", "index", folder, "--url", DAPR_REPOSITORY.rstrip("/")])
    host = _repository_host()
    name = ("-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}")
    kind = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    run_tool(["openssl", *kind, *name, "-keyout", RUN / "etc" / "charts.key", "-out", RUN / "etc" / "charts.crt"])
    both = _BUNDLE.read_text() + (RUN / "etc" / "charts.crt").read_text()
    (RUN / "etc" / "certificates.crt").write_text(both)


def _environment() -> dict[str, str]:
    podman, bare = debian.unpacked(PODMAN), packages.unpacked()
    folders = [RUN / "bin", podman / "usr" / "bin", *(bare / "usr" / name for name in ("bin", "sbin"))]
    return {
        **os.environ,
        "PATH": os.pathsep.join([*map(str, folders), os.environ["PATH"]]),
        "LD_LIBRARY_PATH": str(podman / "usr" / "lib" / "x86_64-linux-gnu"),
        "HOME": str(RUN / "home"),
        "TMPDIR": str(RUN / "tmp"),
        "KUBECONFIG": str(RUN / "home" / "kubeconfig"),
        "DACA_CACHE": str(CACHE),
        "DACA_KIND_RUN": str(RUN),
        "CONTAINERS_CONF": str(RUN / "etc" / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(RUN / "etc" / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(RUN / "etc" / "registries.conf"),
        "KIND_EXPERIMENTAL_PROVIDER": "podman",
        "SSL_CERT_FILE": str(RUN / "etc" / "certificates.crt"),
    }


def _run(command: Sequence[str]) -> int:
    bare = packages.unpacked()
    machine.make_cgroups(NAME)
    # It waits for a line before it goes on: until then pasta gives it its way to the internet.
    inside = ["sh", str(HERE / "enter.sh"), NAME, *_WITH_PARENT, "unshare", *_NAMESPACES]
    inside += ["sh", str(HERE / "init.sh"), str(RUN), str(ROOT), str(bare / "usr" / "bin" / "catatonit"), "--"]
    inside += [sys.executable, str(HERE / "charts.py"), *command]
    environment = _environment()
    process = subprocess.Popen([*_WITH_PARENT, *inside], env=environment, stdin=subprocess.PIPE, cwd=ROOT)
    pasta = None
    try:
        _wait_for_network(process)
        pasta = subprocess.Popen([*_WITH_PARENT, *_internet(bare, process.pid)], cwd="/")
        for group in machine.cgroups([NAME]):  # the ones at the top: nothing has made others yet
            (group / "cgroup.procs").write_text(str(pasta.pid))
        if process.stdin:
            process.stdin.close()
        return process.wait()
    finally:
        for started in (process, pasta):
            if started and started.poll() is None:
                started.kill()
                started.wait()


def _internet(bare: Path, pid: int) -> list[str]:
    """The command that relays what is sent from the network of process ``pid``; nothing comes in this way."""
    return [
        *("unshare", "--mount", "--", "sh", str(HERE.parent / "bare" / "node-internet.sh"), str(pid)),
        *(str(bare / "usr" / "bin" / "pasta"), "--foreground", "--stderr", "--quiet", "--runas=0", "--ipv4-only"),
        *("--netns", "/mnt/network", "--config-net", "--ns-ifname=internet"),
        *(f"--address={ADDRESS}", "--netmask=24", f"--gateway={GATEWAY}", f"--dns-forward={NAMESERVER}"),
        *("--no-map-gw", "--tcp-ports=none", "--udp-ports=none", "--tcp-ns=none", "--udp-ns=none"),
    ]


def _wait_for_network(process: "subprocess.Popen[bytes]") -> None:
    ours = Path("/proc/self/ns/net").readlink()
    end = time.monotonic() + GONE_SECONDS
    while process.poll() is None and time.monotonic() < end:
        if Path(f"/proc/{process.pid}/ns/net").readlink() != ours:
            return
        time.sleep(POLL_SECONDS)
    raise CommandError("the namespaces of kind on Podman do not come up")
