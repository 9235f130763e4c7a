"""`python -m cluster.kind_on_podman images`, or `... run COMMAND...`; as root on Linux."""

import argparse
import sys

from cluster import kind_on_podman
from cluster.errors import exit_code
from cluster.kind_on_podman import images, namespaces


def main() -> int:
    """Runs the command of the command line; its exit code."""
    options = _parser().parse_args()
    match options.command:
        case "images":
            return exit_code(images.make, interrupted="the same command goes on where it was")
        case _:
            return exit_code(lambda: namespaces.run(options.arguments), interrupted="all that ran has ended")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster.kind_on_podman", description=kind_on_podman.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("images", help="make the node image, and all that is in it")
    run = commands.add_parser("run", help="run a command with the engine, on a view of this checkout of its own")
    run.add_argument("arguments", nargs=argparse.REMAINDER, metavar="COMMAND", help="and its arguments")
    return parser


if __name__ == "__main__":
    sys.exit(main())
