"""The placement view in the terminal, as JSON for other programs, and what the ring predicts.

python -m actor_load.placement                  a live table, until Ctrl-C
python -m actor_load.placement --once           one look
python -m actor_load.placement --json           one look a line, for ever
python -m actor_load.placement host alice bob   the pods where these ids live, by the ring (or the rendezvous) of now
python -m actor_load.placement ring --hosts 1,3,6,2    skew and moves to expect, without a cluster
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from pydantic import ValidationError
from rich.console import Console
from rich.live import Live
from rich.table import Table as RichTable

from actor_load.errors import LoadError
from actor_load.placement import ring, view
from actor_load.placement.observer import Observer, Watched
from actor_load.placement.rule import rule
from actor_load.record import PlacementSample

FAILED: Final = 2
TICK_SECONDS: Final = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code, 2 after one line that says what is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        if given.command == "ring":
            _ring(console, given.hosts, given.rings, given.seed)
        else:
            _watch(console, _watched(given), given)
    except LoadError as error:
        print(f"placement: {error}", file=sys.stderr, flush=True)
        return FAILED
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:  # whoever read it has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m actor_load.placement", description="Where actors live.")
    for name, field in Watched.model_fields.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            default=os.environ.get(f"LOCUST_{name.upper()}", field.default),
            metavar=name.rpartition("_")[2].upper(),
            help=f"{field.description} Default: {field.default or 'none'}.",
        )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="One look, and no live table.")
    how.add_argument("--json", action="store_true", help="One look a line as JSON, for ever.")
    parser.add_argument("--parent", type=int, default=None, help="End when this process is no longer the parent.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    host = commands.add_parser("host", help="where these ids live now, by the ring")
    host.add_argument("ids", nargs="+", metavar="ID")
    predicted = commands.add_parser("ring", help="what the ring predicts, without a cluster")
    predicted.add_argument("--hosts", type=_counts, default="1,3,6,2", help="One after the other. Default: 1,3,6,2.")
    predicted.add_argument("--rings", type=_count, default=ring.RINGS, help=f"Random rings. Default: {ring.RINGS}.")
    predicted.add_argument("--seed", type=int, default=0, help="Of their addresses. Default: 0.")
    return parser


def _watched(given: argparse.Namespace) -> Watched:
    try:
        return Watched.model_validate(given)
    except ValidationError as error:
        found = error.errors()[0]
        option = "--" + str(found["loc"][0]).replace("_", "-")
        raise LoadError(f"{option} {found['input']}: {found['msg']}") from error


def _watch(console: Console, watched: Watched, given: argparse.Namespace) -> None:
    with Observer(watched) as observer:
        if given.json:
            # No check: whoever reads wants to know of every problem, and of its end.
            for sample in _samples(observer, given.parent):
                print(sample.model_dump_json(), flush=True)
            return
        observer.check()
        if given.command == "host":
            console.print(_hosts(observer.observe(), watched.actor_type, given.ids))
        elif given.once:
            console.print(view.table(observer.observe()))
        else:
            with Live(console=console, auto_refresh=False) as live:
                for sample in _samples(observer, given.parent):
                    live.update(view.table(sample), refresh=True)


def _samples(observer: Observer, parent: int | None) -> Iterator[PlacementSample]:
    """Looks, evenly spaced, as long as ``parent`` is the parent."""
    due = time.monotonic()
    while parent is None or os.getppid() == parent:
        if time.monotonic() >= due:
            yield observer.observe()
            due = max(due + observer.watched.placement_seconds, time.monotonic())
        time.sleep(min(max(due - time.monotonic(), 0), TICK_SECONDS))


def _hosts(sample: PlacementSample, actor_type: str, ids: Sequence[str]) -> RichTable:
    addresses = [host.address for host in sample.hosts if actor_type in host.actor_types]
    if not addresses:
        raise LoadError("; ".join(sample.problems) or f"no host offers {actor_type}: --actor-type names another")
    pods = {pod.ip: pod.name for pod in sample.pods}
    found = rule(sample.placer, addresses)
    shown = RichTable("id", "pod", "address")
    for actor_id in ids:
        address = found.host_of(actor_id)
        shown.add_row(actor_id, pods.get(address.rpartition(":")[0], "-"), address)
    return shown


def _ring(console: Console, hosts: Sequence[int], rings: int, seed: int) -> None:
    skews = RichTable(
        *("hosts", "ideal share", "fullest host, median", "of the worst ring", "emptiest, median", "of the worst ring"),
        title=f"Share of a host against the ideal, {rings} rings of random addresses, seed {seed}",
    )
    for count in dict.fromkeys(hosts):
        skew = ring.predicted_skew(count, rings, seed)
        shares = (skew.fullest.median, skew.fullest.most, skew.emptiest.median, skew.emptiest.least)
        skews.add_row(str(count), f"{1 / count:.1%}", *(f"{share:.2f} x" for share in shares))
    console.print(skews)
    if len(hosts) > 1:
        moves = RichTable("change", "moved, median", "least", "most", title="Share of the actors that get another host")
        for before, after in pairwise(hosts):
            moved = ring.predicted_move(before, after, rings, seed).moved
            moves.add_row(f"{before} -> {after}", f"{moved.median:.1%}", f"{moved.least:.1%}", f"{moved.most:.1%}")
        console.print(moves)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1")
    return int(text)


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
