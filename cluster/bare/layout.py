"""Where the bare node is: its addresses, its folders, its names."""

import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

NAME: Final = "daca-bare"
"""Of the first Kubernetes node; the names of the others begin with it."""

# RFC 2544 reserves 198.18.0.0/15 for benchmarks: no network that the machine talks to uses it.
RANGE: Final = IPv4Network("198.18.0.0/15")
MACHINE_ADDRESS: Final = IPv4Address("198.18.0.254")
INTERNET_ADDRESS: Final = IPv4Address("198.18.1.1")
"""Of every node, towards the rest of the world; only the node itself sees it."""
GATEWAY_ADDRESS: Final = IPv4Address("198.18.1.2")
NAMESERVER_ADDRESS: Final = IPv4Address("198.18.1.3")
"""What is asked here is asked of the machine's own name server."""
PODS: Final = IPv4Network("198.18.64.0/18")
SERVICES: Final = IPv4Network("198.19.0.0/16")

STATE: Final = Path(os.environ.get("DACA_STATE") or "/var/lib/daca/bare-node").absolute()
"""All that a running node writes: etcd, containers, volumes, keys, logs. `down` deletes it."""

HERE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Node:
    """One node of the cluster. The first also has the control plane, and what a cluster has only once."""

    number: int
    """From 1."""

    @property
    def first(self) -> bool:
        """Whether it is the one that is always there."""
        return self.number == 1

    @property
    def name(self) -> str:
        """Of the Kubernetes node, of the interfaces that lead to it, of its cgroups, and of its folder."""
        return NAME if self.first else f"{NAME}-{self.number}"

    @property
    def address(self) -> IPv4Address:
        """At which the machine, the other nodes and all pods reach it."""
        return RANGE[self.number]

    @property
    def pods(self) -> IPv4Network:
        """The addresses of its pods."""
        return list(PODS.subnets(new_prefix=20))[self.number - 1]

    @property
    def state(self) -> Path:
        """What only this node writes; it exists for as long as the cluster has the node, whether it runs or not."""
        return STATE / self.name

    @property
    def etc(self) -> Path:
        """What its components read."""
        return self.state / "etc"

    @property
    def pki(self) -> Path:
        """Its own keys and certificates."""
        return self.state / "pki"


NODES: Final = (Node(1), Node(2), Node(3))
"""As many as there can be: all of them share one machine."""

FIRST: Final = NODES[0]
API_SERVER: Final = f"https://{FIRST.address}:6443"
REGISTRY: Final = f"{FIRST.address}:5000"


def present() -> tuple[Node, ...]:
    """The nodes that the cluster has, whether they run or not; the first, where there is no cluster."""
    return NODES[: max((node.number for node in NODES if node.state.exists()), default=1)]
