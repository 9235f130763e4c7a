"""What the machine must have: checked before anything starts; and Debian's packages, installed where missing."""

import os
import platform
import shutil
import tempfile
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, NamedTuple

from cluster import binaries, debian
from cluster.bare.layout import NODES, RANGE, STATE
from cluster.cache import CACHE
from cluster.errors import CommandError
from cluster.shell import succeeds
from cluster.steps import step


class Package(NamedTuple):
    """A package of Debian, and the file or command that shows that it is installed."""

    name: str
    provides: str


INSTALLED: Final = (
    Package("buildah", "buildah"),
    Package("debootstrap", "debootstrap"),
    Package("debian-archive-keyring", "/usr/share/keyrings/debian-archive-keyring.gpg"),
    Package("iproute2", "ip"),
    Package("iptables", "iptables"),
    Package("openssl", "openssl"),
)
# These are unpacked into the cache, not installed: installed, their services would start with the machine, and Debian's
# containerd takes the place of the one that a Docker engine brings along.
UNPACKED: Final = (
    "busybox-static",
    "catatonit",
    "containerd",
    "containernetworking-plugins",
    "docker-registry",
    "passt",
    "runc",
)

GIGABYTE: Final = 1_000_000_000
COLD_BYTES: Final = 16 * GIGABYTE
"""What Go's build cache, the binaries, the images and a node's state take."""
WARM_BYTES: Final = 4 * GIGABYTE
CONTROLLERS: Final = frozenset({"cpu", "cpuset", "memory", "pids"})

_MODULES: Final = ("overlay", "br_netfilter", "veth", "bridge", "nf_nat", "tun")


def preflight() -> list[str]:
    """What keeps the bare node from running here, one line each with the mend. Empty: it can run.

    It loads the kernel's modules that the node needs, where they are modules, and changes nothing else.
    """
    if platform.system() != "Linux":
        return [f"the bare node needs Linux, and this is {platform.system()}: use CLUSTER=current"]
    if os.geteuid() != 0:
        return ["the bare node needs root (it mounts, makes network interfaces and runs containers): run make as root"]
    checks = [
        _apt_problem(),
        binaries.go_problem(binaries.NODE),
        _space_problem(),
        _cgroup_problem(),
        _address_problem(),
    ]
    return [problem for problem in (*checks, *kernel_problems()) if problem is not None]


def kernel_problems() -> list[str]:
    """Kernel features that are missing, tried out in namespaces that end with the try.

    Those that need a command of a package that is missing are left out: :func:`install` asks again once it is there.
    """
    for module in _MODULES:
        if shutil.which("modprobe"):
            succeeds("modprobe", "--quiet", module)
    if not _works("true"):
        return ["this machine allows no new namespaces (mount, network, process): run it outside of a container"]
    problems = []
    with tempfile.TemporaryDirectory(dir=_existing(STATE)) as scratch:
        for layer in ("lower", "upper", "work", "merged"):
            (Path(scratch) / layer).mkdir()
        if not _works(
            f"cd '{scratch}' && mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay merged"
        ):
            problems.append(
                f"overlay does not mount below {_existing(STATE)}: name a folder of a plain file system with DACA_STATE"
            )
    if not Path("/proc/sys/net/bridge").exists():
        problems.append("the kernel filters no bridged traffic: load its module br_netfilter")
    if not Path("/dev/net/tun").exists():
        problems.append("there is no /dev/net/tun, which the node's way to the internet needs: load the module tun")
    if shutil.which("ip") and not _works("ip link add veth0 type veth peer veth1 && ip link add bridge0 type bridge"):
        problems.append("the kernel has no veth or no bridge devices: use one built with CONFIG_VETH and CONFIG_BRIDGE")
    if shutil.which("iptables") and not _works(
        "iptables -t nat -A POSTROUTING -m comment --comment try -m statistic --mode random --probability 0.5 "
        "-m conntrack --ctstate DNAT -m addrtype --dst-type LOCAL -j MASQUERADE"
    ):
        problems.append("iptables cannot translate addresses: use a kernel with netfilter's NAT and its matches")
    return problems


def plan() -> list[str]:
    """What `up` installs and builds first, one line each. Empty: everything is there."""
    lines = []
    if missing := _missing():
        lines.append(f"install Debian packages: {', '.join(missing)}")
    if not unpacked().exists():
        lines.append(f"unpack Debian packages into {CACHE}: {', '.join(UNPACKED)}")
    if tools := binaries.missing(binaries.NODE):
        lines.append(f"build from Go modules: {', '.join(tool.name for tool in tools)} (about 15 minutes on two cores)")
    if not (CACHE / "registry").exists():
        lines.append("make images: of Debian (debootstrap), Python and Redis, and of Dapr's programs (two minutes)")
    return lines


def install() -> None:
    """Installs and unpacks what is missing.

    Raises:
        CommandError: a package is not to be had, or a kernel feature that could not be tried before is missing.
    """
    if missing := _missing():
        with step(f"installed: {', '.join(missing)}"):
            debian.install(missing)
        if problems := kernel_problems():
            raise CommandError("; ".join(problems))
    if not unpacked().exists():
        with step(f"unpacked: {', '.join(UNPACKED)}"):
            debian.unpack(UNPACKED)


def unpacked() -> Path:
    """The folder that the :data:`UNPACKED` packages are in, as if it were the root folder."""
    return debian.unpacked(UNPACKED)


def routed_ranges(table: str) -> list[tuple[str, IPv4Address]]:
    """Interface and destination of every line of /proc/net/route that leads into the node's range."""
    found = []
    for line in table.splitlines()[1:]:
        interface, destination, _gateway, *_ = line.split()
        address = IPv4Address(int.from_bytes(bytes.fromhex(destination), "little"))
        if address in RANGE:
            found.append((interface, address))
    return found


def _works(script: str) -> bool:
    return succeeds("unshare", "--mount", "--net", "--ipc", "--pid", "--fork", "sh", "-c", script)


def _apt_problem() -> str | None:
    if debian.has_apt():
        return None
    return "the bare node needs Debian's packages, and apt-get is not here: use Debian or Ubuntu, or CLUSTER=current"


def _space_problem() -> str | None:
    needed = COLD_BYTES if binaries.missing(binaries.NODE) else WARM_BYTES
    for folder, variable in ((CACHE, "DACA_CACHE"), (STATE, "DACA_STATE")):
        free = shutil.disk_usage(_existing(folder)).free
        if free < needed:
            return (
                f"{folder} has {free // GIGABYTE} GB free and needs {needed // GIGABYTE}: make room, or name another "
                f"folder with {variable}"
            )
    return None


def _cgroup_problem() -> str | None:
    root = Path("/sys/fs/cgroup")
    unified = root / "cgroup.controllers"
    present = set(unified.read_text().split()) if unified.exists() else {path.name for path in root.glob("*")}
    missing = CONTROLLERS - {name for group in present for name in group.split(",")}
    if not missing:
        return None
    return f"{root} has no controller {', '.join(sorted(missing))}: mount cgroups with it, or enable it in the kernel"


def _address_problem() -> str | None:
    for interface, address in routed_ranges(Path("/proc/net/route").read_text()):
        if interface not in {node.name for node in NODES}:
            return f"the node's addresses {RANGE} are in use: {address} is behind {interface}; free them first"
    return None


def _missing() -> list[str]:
    return [
        package.name
        for package in INSTALLED
        if not (Path(package.provides).exists() if package.provides.startswith("/") else shutil.which(package.provides))
    ]


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
