"""The bare node on its own: `python -m cluster.bare up|down|kill|status`. `make` calls it as a part of more.

`python -m cluster.bare image` is how Skaffold has an image built.
"""

import argparse
import sys
from pathlib import Path

from cluster import bare
from cluster.bare.layout import NODES
from cluster.errors import CommandError
from cluster.target import BARE_KUBECONFIG


def main() -> int:
    """Runs the command of the command line; its exit code."""
    options = _parser().parse_args()
    try:
        match options.command:
            case "up":
                bare.up(BARE_KUBECONFIG, options.nodes)
            case "down":
                bare.down()
                BARE_KUBECONFIG.unlink(missing_ok=True)
            case "kill":
                bare.kill(options.node)
            case "status":
                return _status()
            case "image":
                bare.build_image(options.reference, options.context, options.target)
    except CommandError as error:
        if error.said:
            print(error.said, file=sys.stderr)
        print(f"bare node: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster.bare", description=bare.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start or mend the nodes")
    counts = range(1, len(NODES) + 1)
    up.add_argument("--nodes", type=int, choices=counts, help="how many there shall be; else as many as there are")
    commands.add_parser("down", help="remove them, and all they have written")
    kill = commands.add_parser("kill", help="end all that runs on a node at once, as a power cut does; `up` starts it")
    kill.add_argument("node", help="its name")
    commands.add_parser("status", help="how each component is")
    image = commands.add_parser("image", help="build a service's image and push it to the node's registry")
    image.add_argument("reference", help="its name, registry and tag included")
    image.add_argument("context", type=Path, help="the folder images/")
    image.add_argument("--target", default="", help="the stage of its Dockerfile, if not the last")
    return parser


def _status() -> int:
    components = bare.status()
    for component in components:
        print(f"{component.name:36}{component}")
    return 0 if all(component.running for component in components) else 1


if __name__ == "__main__":
    sys.exit(main())
