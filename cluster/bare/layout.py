"""Where the bare node is: its addresses, its folders, its name."""

import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

NAME: Final = "daca-bare"
"""Of the Kubernetes node, of the machine's interface that leads to it, and of its cgroups."""

# RFC 2544 reserves 198.18.0.0/15 for benchmarks: no network that the machine talks to uses it.
RANGE: Final = IPv4Network("198.18.0.0/15")
NODE_ADDRESS: Final = IPv4Address("198.18.0.1")
MACHINE_ADDRESS: Final = IPv4Address("198.18.0.2")
LINK_PREFIX: Final = 24
INTERNET_ADDRESS: Final = IPv4Address("198.18.1.1")
"""Of the node, towards the rest of the world."""
GATEWAY_ADDRESS: Final = IPv4Address("198.18.1.2")
NAMESERVER_ADDRESS: Final = IPv4Address("198.18.1.3")
"""What is asked here is asked of the machine's own name server."""
PODS: Final = IPv4Network("198.18.64.0/18")
SERVICES: Final = IPv4Network("198.19.0.0/16")
API_SERVER: Final = f"https://{NODE_ADDRESS}:6443"
REGISTRY: Final = f"{NODE_ADDRESS}:5000"

STATE: Final = Path(os.environ.get("DACA_STATE") or "/var/lib/daca/bare-node").absolute()
"""All that a running node writes: etcd, containers, volumes, keys, logs. `down` deletes it."""

HERE: Final = Path(__file__).parent
