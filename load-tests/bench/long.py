"""`make bench-long`: whether a turn costs the same late in a long session, and beside many users.

Runs ours as `make local` does, with a state of its own. One user sends message after message, and what a turn takes is
measured at some of them; then so many users are stored, by a write of each actor, and it is measured again.
"""

import argparse
import http.client
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.parse import urlsplit

import altair as alt
import orjson
import vl_convert
from actor_load.palette import PAPER, in_light

from bench import cpu, options, systems
from bench.actor_calls import Caller
from bench.children import Child
from bench.picture import FONT, SCALE, bars
from bench.wrk import Wrk
from cluster import screen
from cluster.errors import CommandError
from cluster.steps import say

EARLY: Final = 10
"""The message at which those begin to be measured who have just come."""
AT_ONCE: Final = 32
FILLING: Final = "and so on, "
LENGTHS: Final = "message of the session"
USERS: Final = "users stored"


@dataclass(frozen=True)
class Point:
    """What a turn takes."""

    by: str
    """:data:`LENGTHS` or :data:`USERS`."""
    at: int
    p50_ms: float
    cpu_ms: dict[str, float]
    """Of CPU, by process."""


class Person:
    """Sends messages, one after the other."""

    def __init__(self, url: str, user_id: str, characters: int = 0) -> None:
        """``characters``: a shorter message is filled up to so many."""
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._user_id = user_id
        self._characters = characters
        self.sent = 0
        self.exchanged = 0
        """Characters of all messages and replies."""

    def close(self) -> None:
        """Hangs up; the next message is sent over another connection."""
        self._connection.close()

    def say_until(self, number: int) -> list[float]:
        """Sends messages up to this one; the milliseconds of each.

        Raises:
            CommandError: one was not answered with a reply of its number.
        """
        return list(self._say(number))

    def _say(self, number: int) -> Iterator[float]:
        while self.sent < number:
            self.sent += 1
            session = {"session_id": f"s-{self._user_id}"}
            text = self._text()
            body = {"user_id": self._user_id, "text": text, "metadata": session}
            began = time.perf_counter()
            self._connection.request("POST", "/chat/", orjson.dumps(body), {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            told = answer.read()
            if answer.status != 200 or (found := orjson.loads(told))["sequence"] != self.sent:
                raise CommandError(f"message {self.sent} was answered {answer.status}: {told.decode()[:200]}")
            self.exchanged += len(text) + len(found["reply"])
            yield 1000 * (time.perf_counter() - began)

    def _text(self) -> str:
        text = f"message {self.sent}"
        room = self._characters - len(text) - 1
        return f"{text} {(FILLING * room)[:room]}" if room > 0 else text


def main(arguments: list[str] | None = None) -> int:
    """One run; 0, 1 where something did not work, 2 where it was called wrongly."""
    return options.run(lambda: _bench(parse(arguments)))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options, checked.

    Raises:
        CommandError: one is not what it should be.
    """
    parser = options.Parser(prog="python -m bench.long", description=__doc__)
    parser.add_argument(
        "--messages", type=_rising(EARLY, 1_000_000), default=[10, 1000, 10_000], help="of a session (10,1000,10000)"
    )
    parser.add_argument(
        "--users", type=_rising(1, 1_000_000), default=[1, 1000, 100_000], help="stored (1,1000,100000)"
    )
    parser.add_argument("--turns", type=options.count(1, 1000), default=100, help="measured in a row (100)")
    parser.add_argument("--to", type=Path, help="the folder for long.json and long.png (load-results/<time>-long)")
    return parser.parse_args(arguments)


def _bench(chosen: argparse.Namespace) -> int:
    began = datetime.now(UTC)
    folder = options.folder(chosen.to, began, "long")
    with tempfile.TemporaryDirectory(prefix="daca-bench-") as scratch, systems.local(Path(scratch)) as child:
        points = [
            *_by_length(child, chosen.messages, chosen.turns),
            *_by_users(child, chosen.users, chosen.turns),
        ]
    written = {"about": options.about("bench-long", began), "points": [asdict(point) for point in points]}
    (folder / "long.json").write_text(json.dumps(written, indent=1) + "\n")
    subtitle = f"{began:%Y-%m-%d}, {os.cpu_count()} cores, one user at a time"
    (folder / "long.png").write_bytes(vl_convert.vegalite_to_png(spec(points, subtitle), scale=SCALE))
    shown = screen.table("A turn", "", "at", "p50 ms", "CPU ms")
    for point in points:
        shown.add_row(point.by, f"{point.at:,}", f"{point.p50_ms:.1f}", f"{sum(point.cpu_ms.values()):.1f}")
    screen.console().print(shown)
    print(folder / "long.json", folder / "long.png", sep="\n")
    return 0


def _by_length(child: Child, messages: Sequence[int], turns: int) -> Iterator[Point]:
    with closing(Person(systems.local_chat(), "long")) as person:
        for number in messages:
            person.say_until(number)
            yield _measure(child, person, turns, LENGTHS, number)


def _by_users(child: Child, users: Sequence[int], turns: int) -> Iterator[Point]:
    stored, wrk = 0, Wrk()
    for number in users:
        caller = Caller(wrk, systems.local_sidecar(), range(stored, number), AT_ONCE)
        failed = caller.all("stored", "ClearHistory", {}, 1).failed
        if failed:
            raise CommandError(f"of {number - stored} users {sum(failed.values())} could not be stored: {failed}")
        stored = number
        with closing(Person(systems.local_chat(), f"beside-{number}")) as person:
            person.say_until(EARLY)
            yield _measure(child, person, turns, USERS, number)


def _measure(child: Child, person: Person, turns: int, by: str, at: int) -> Point:
    before = cpu.look()
    latencies = person.say_until(person.sent + turns)
    spent = cpu.spent(before, cpu.look(), systems.local_scope(child))
    point = Point(by, at, median(latencies), {name: 1000 * seconds / turns for name, seconds in spent.items()})
    say(f"{by} {at:,}: p50 {point.p50_ms:.1f} ms, {sum(point.cpu_ms.values()):.1f} ms of CPU a turn")
    return point


def spec(points: Sequence[Point], about: str) -> dict[str, Any]:
    """The picture, as Vega-Lite."""
    title = alt.TitleParams("What a turn takes", subtitle=about, anchor="start")
    names = [name for point in points for name in point.cpu_ms]
    panels = []
    for by in (LENGTHS, USERS):
        spent = {f"{point.at:,}": point.cpu_ms for point in points if point.by == by}
        panels.append(bars(spent, names, "y", by).properties(width=260, height=260))
    chart = alt.hconcat(*panels, spacing=30).resolve_scale(y="shared").properties(title=title, padding=16)
    drawn: dict[str, Any] = chart.configure(font=FONT, background=PAPER).configure_view(stroke=None).to_dict()
    return in_light(drawn)


def _rising(least: int, most: int) -> Any:
    one = options.count(least, most)
    return lambda text: sorted(set(map(one, text.split(","))))


if __name__ == "__main__":
    sys.exit(main())
