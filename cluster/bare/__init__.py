"""The bare node: a real single-machine Kubernetes from upstream Go modules, for Linux machines without a Docker engine.

The node lives in namespaces of its own (processes, mounts, network), as a container does, on addresses of the range
that is reserved for benchmarks (198.18.0.0/15). There can be up to three of its kind. ``components.py`` says what runs
in a node, ``node.py`` how it is started; binaries and images come from a cache that outlives it.
"""

from cluster.bare.images import build_image, build_images
from cluster.bare.node import ComponentStatus, down, kill, leftovers, status, up

__all__ = [
    "ComponentStatus",
    "build_image",
    "build_images",
    "down",
    "kill",
    "leftovers",
    "status",
    "up",
]
