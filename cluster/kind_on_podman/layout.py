"""Names, addresses and folders."""

from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from cluster.cache import CACHE

NAME: Final = "daca-kind"
"""Of the cgroups that everything is below."""
FOLDER: Final = CACHE / "kind"
STORAGE: Final = FOLDER / "storage"
"""Podman's: what it has built once it needs not build again."""
RUN: Final = FOLDER / "run"
"""What a run writes; it goes with the run."""
LOCK: Final = FOLDER / "lock"

# RFC 5737 keeps these for documentation. Only the namespaces see them.
ADDRESS: Final = IPv4Address("198.51.100.1")
GATEWAY: Final = IPv4Address("198.51.100.2")
NAMESERVER: Final = IPv4Address("198.51.100.3")
"""What is asked here is asked of the machine's own name server."""

HERE: Final = Path(__file__).parent
MODULES: Final = Path("/lib/modules")
"""kind mounts it into its nodes; where the machine has none, it is there for as long as the run."""
PODMAN: Final = ("podman", "netavark", "aardvark-dns", "conmon")
"""Debian's packages of the engine, besides those that the bare node has unpacked."""
