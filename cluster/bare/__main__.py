"""The bare node on its own: `python -m cluster.bare up|down|status`. `make` calls it as a part of more."""

import argparse
import sys

from cluster import bare
from cluster.errors import CommandError
from cluster.target import BARE_KUBECONFIG


def main() -> int:
    """Runs the command of the command line; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m cluster.bare", description=bare.__doc__)
    parser.add_argument("command", choices=["up", "down", "status"])
    command = parser.parse_args().command
    try:
        return {"up": _up, "down": _down, "status": _status}[command]()
    except CommandError as error:
        print(f"bare node: {error}", file=sys.stderr)
        return error.exit_code


def _up() -> int:
    bare.up(BARE_KUBECONFIG)
    return 0


def _down() -> int:
    bare.down()
    BARE_KUBECONFIG.unlink(missing_ok=True)
    return 0


def _status() -> int:
    components = bare.status()
    for component in components:
        print(f"{component.name:24}{component}")
    return 0 if all(component.running for component in components) else 1


if __name__ == "__main__":
    sys.exit(main())
