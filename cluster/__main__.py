"""`python -m cluster <command>`: what the Makefile calls. Settings come as options, or from the environment."""

import argparse
import os
import sys
from contextlib import redirect_stdout
from typing import Final

from cluster import binaries, browser
from cluster.bench import COMMANDS, bench
from cluster.chat import chat
from cluster.down import down
from cluster.errors import exit_code
from cluster.inspect import inspect
from cluster.load import DEFAULT_SCENARIO, load
from cluster.load import Settings as LoadSettings
from cluster.load import names as load_scenarios
from cluster.load import plan as load_plan
from cluster.local.command import local
from cluster.status import status
from cluster.up import Settings, plan, up

WHICH: Final = {
    "helm": binaries.helm,
    "helm3": binaries.helm3,
    "kind": binaries.kind,
    "skaffold": binaries.skaffold,
    "kubectl": binaries.kubectl,
    "daprd": binaries.daprd,
    "placement": binaries.placement,
    "dapr-chart": binaries.dapr_chart,
    "chromium": browser.chromium,
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; its exit code: 0, 1 where something did not work, 2 where it was called wrongly."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options), interrupted="the same command goes on where it was")


def _run(options: argparse.Namespace) -> None:
    match options.command:
        case "up":
            _up(options)
        case "down":
            down(options.cluster, options.namespace)
        case "status":
            status(options.cluster, options.namespace)
        case "chat":
            chat(options.cluster, options.namespace, options.user)
        case "inspect":
            inspect(options.cluster, options.namespace, options.user)
        case "local":
            local(options.model)
        case "load":
            _load(options)
        case command if command in COMMANDS:
            bench(options.command, options.options, options.cluster, options.namespace)
        case "which":
            with redirect_stdout(sys.stderr):  # of progress, where it has to be fetched first
                tool = WHICH[options.tool]()
            print(tool)


def _up(options: argparse.Namespace) -> None:
    settings = Settings(
        options.cluster, options.namespace, options.registry, options.model, options.values, options.nodes
    )
    if options.dry_run:
        print(*plan(settings), sep="\n")
    else:
        up(settings)


def _load(options: argparse.Namespace) -> None:
    settings = LoadSettings(
        options.cluster,
        options.namespace,
        options.registry,
        options.scenario,
        options.shape,
        options.users,
        options.run_time,
        options.workers,
        options.classes,
        options.options,
    )
    if options.dry_run:
        print(*load_plan(settings), sep="\n")
    else:
        load(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    made = {
        name: commands.add_parser(name, help=text)
        for name, text in {
            "up": "a cluster, Dapr, the bundle, and the main job on it",
            "down": "remove what `up` made",
            "status": "what runs, and where it answers",
            "chat": "talk to it in the terminal",
            "inspect": "the session actor of a user: host, activation, state",
            "load": "load on the chat and its actors, from inside the cluster; a report",
            "bench-activations": "actors activated with a first write, deactivated, read again: rates and memory",
            "bench-long": "what a turn takes late in a long session, and beside many users",
            "bench-capacity": "measures what `capacity` works with",
            "capacity": "what many users take, and what ends first: docs/capacity.md",
            "bench": "ours and a chat without Dapr on this machine, in turns: turns/s, latency, CPU by process",
        }.items()
    }
    which = commands.add_parser(
        "which", help="the path of a tool that the project brings along; fetched or built first, if need be"
    )
    which.add_argument("tool", choices=WHICH)
    made_local = commands.add_parser("local", help="the services with their sidecars, without Kubernetes, until Ctrl-C")
    _setting(made_local, "--model", "MODEL", "offline (the default) or gemini, with the key in GEMINI_API_KEY")
    for command in made.values():
        _setting(
            command,
            "--cluster",
            "CLUSTER",
            "kind, minikube, bare or current; `up` chooses without, the others take what it chose",
        )
        _setting(command, "--namespace", "NAMESPACE", "the namespace of the bundle (daca)")
    for name in ("up", "load"):
        _setting(made[name], "--registry", "IMAGE_REGISTRY", "with CLUSTER=current: where images are pushed and pulled")
        made[name].add_argument(
            "--dry-run",
            action="store_true",
            default=bool(os.environ.get("DRY_RUN")),
            help="only print the commands that it would run [DRY_RUN]",
        )
    _setting(made["up"], "--model", "MODEL", "offline (the default) or gemini, with the key in GEMINI_API_KEY")
    _setting(made["up"], "--values", "VALUES", "a file of chart values of your own")
    _setting(made["up"], "--nodes", "NODES", "of the bare node: 1, 2 or 3; without, as many as there are, at first one")
    for option, variable, text in (
        ("--scenario", "SCENARIO", f"{', '.join(load_scenarios())} or none; without it and SHAPE {DEFAULT_SCENARIO}"),
        ("--shape", "SHAPE", "instead of a scenario: constant, ramp, spike, soak or steps"),
        ("--users", "USERS", "at the peak"),
        ("--run-time", "RUN_TIME", "of the load at the longest: 300, 90s, 5m"),
        ("--workers", "WORKERS", "pods that make the load"),
        ("--classes", "CLASSES", "user classes, with blanks between them"),
        ("--options", "LOAD_OPTIONS", "more options of load-tests/locustfile.py: `--max-p95 500 --think-time 1`"),
    ):
        _setting(made["load"], option, variable, text)
    _setting(made["bench"], "--options", "BENCH_OPTIONS", "`--help`, or `--systems peer,cluster --rounds 5 --calls`")
    _setting(made["bench-long"], "--options", "BENCH_OPTIONS", "`--help`, or `--messages 10,1000 --users 1,1000`")
    _setting(made["bench-capacity"], "--options", "BENCH_OPTIONS", "`--help`, or `--what users,rounds`")
    _setting(made["capacity"], "--options", "BENCH_OPTIONS", "`--help`, or `--turns-a-day 20 --characters 1000`")
    _setting(made["bench-activations"], "--options", "BENCH_OPTIONS", "`--help`, or `--users 300000`")
    for name in ("chat", "inspect"):
        made[name].add_argument("user", nargs="?", default=os.environ.get("USER") or "you", help="a user id ($USER)")
    return parser


def _setting(parser: argparse.ArgumentParser, option: str, variable: str, text: str) -> None:
    parser.add_argument(option, default=os.environ.get(variable, ""), help=f"{text} [{variable}]")


if __name__ == "__main__":
    sys.exit(main())
