"""The bare node on its own: `python -m cluster.bare up|down|status`. `make` calls it as a part of more.

`python -m cluster.bare image` is how Skaffold has an image built.
"""

import argparse
import sys
from pathlib import Path

from cluster import bare
from cluster.errors import CommandError
from cluster.target import BARE_KUBECONFIG


def main() -> int:
    """Runs the command of the command line; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m cluster.bare", description=bare.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("up", "down", "status"):
        commands.add_parser(command)
    image = commands.add_parser("image", help="build a service's image and push it to the node's registry")
    image.add_argument("reference", help="its name, registry and tag included")
    image.add_argument("context", type=Path, help="the folder images/")
    image.add_argument("--target", default="", help="the stage of its Dockerfile, if not the last")
    options = parser.parse_args()
    try:
        if options.command == "image":
            bare.build_image(options.reference, options.context, options.target)
            return 0
        return {"up": _up, "down": _down, "status": _status}[options.command]()
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
