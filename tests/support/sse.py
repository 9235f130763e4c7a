"""Server-sent events as a client reads them."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple


class Event(NamedTuple):
    """One event; ``data`` is its JSON."""

    kind: str
    data: Any
    event_id: str


def events(lines: Iterable[str]) -> Iterator[Event]:
    """The events in the lines of a stream; comments are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Event(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
            fields = {}
