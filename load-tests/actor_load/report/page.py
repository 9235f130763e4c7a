"""One self-contained HTML page: it asks nobody for anything, and says so to the browser (a content security policy)."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from actor_load import palette, words
from actor_load.record import Event, Record, Section, Summary
from actor_load.report import overview, pods
from actor_load.report.charts import unchecked
from actor_load.report.figures import Figure, Figures
from actor_load.report.marks import numbered
from actor_load.report.spread import Spread, spreads

_NUMBER = re.compile(r"[-+±<]? ?\d[\d,]*(\.\d+)?( ?(%|/s|s|ms|min|MiB|kB).*| \(.*\))?$|-?$")
_HERE = Path(__file__).parent
REQUEST_COLUMNS = (
    "name",
    "answered",
    "failed",
    "a second",
    *(f"p{percent:g}" for percent in overview.PERCENTILES),
    "slowest",
)
_REQUEST_TITLE = "Tries more of a turn have a name that begins with retry; they are counted nowhere else"
_PHASE_TITLE = "By phase: a turn belongs to that in which it was due, a call to that in which it was answered"
_SPREAD_COLUMNS = ("until", "pods", "pod", "actors", "share", "ideal", "by the ring", "off, in points", "by chance")
_SPREAD_TITLE = "Active actors at the end of each settled table; “by chance” is two standard deviations"
POD_COLUMNS = ("in charts", "pod", "node", "address", "seen", "restarts", "most actors")
_SHARE_CHARTS = 6
"""Of the settled tables; all of them are in the page's table."""

_EVENTS_FIRST = 16
"""With more events their list is not in the way of all else, but further down."""

Rows = list[list[str]]


@dataclass(frozen=True)
class _Table:
    columns: Sequence[str]
    rows: Rows
    title: str

    @property
    def numbers(self) -> list[bool]:
        """Which columns are of numbers, and stand right."""
        columns = [[row[index] for row in self.rows if index < len(row)] for index in range(len(self.columns))]
        return [any(column) and all(map(_NUMBER.match, column)) for column in columns]


@dataclass(frozen=True)
class _Part:
    """A section of the record, with the charts of its time."""

    section: Section
    tables: list[_Table]
    figures: list[Figure]
    when: str


def render(record: Record) -> str:
    """The page."""
    with unchecked():
        return _render(record)


def _render(record: Record) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["line"] = overview.line
    figures = Figures(record)
    spread = spreads(record)
    return environment.get_template("page.html.j2").render(
        record=record,
        verdict=overview.verdict(record),
        headline=overview.headline(record),
        warnings=overview.warnings(record),
        when=f"{words.clock(record.started)}, {words.lasted(record.ended - record.started)}",
        parts=[_part(record, section) for section in record.sections],
        by_phase=_Table(overview.PHASE_COLUMNS, overview.by_phase(record), _PHASE_TITLE),
        traffic=figures.traffic(),
        placement=[figure for figure in (figures.placement(), *figures.table()) if figure],
        shares=[figures.shares(one) for one in spread[-_SHARE_CHARTS:]],
        spread=_Table(_SPREAD_COLUMNS, _spread(record, spread), _SPREAD_TITLE),
        resources=figures.resources(),
        generator=figures.generator(),
        requests=_Table(REQUEST_COLUMNS, _requests(record), _REQUEST_TITLE),
        pods=_Table(POD_COLUMNS, _pods(record), "Pods"),
        failures=_Table(("name", "count", "error"), _failures(record), ""),
        made=[
            _Table((title, "value"), [list(pair) for pair in of.items()], "")
            for title, of in (("Versions", record.versions), ("Settings", record.settings))
        ],
        events_first=len(record.events) <= _EVENTS_FIRST,
        events=[_event(number, event, record) for number, event in numbered(record)],
        script=_script(_bundle()),
        own_script=_script((_HERE / "page.js").read_text(encoding="utf-8")),
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - ours
        light=palette.css(palette.LIGHT),
        dark=palette.css(palette.DARK),
    )


def _part(record: Record, section: Section) -> _Part:
    figures = Figures(record, section.started, section.ended)
    placement = figures.placement(height=170, wide=True)
    drawn = [*figures.traffic(rate=170, latency=170, wide=False), *([placement] if placement else [])]
    began, ended = (words.elapsed(at - int(record.started)) for at in (section.started, section.ended))
    tables = [_Table(table.columns, table.rows, table.title) for table in section.tables]
    return _Part(section, tables, drawn, f"{began} to {ended}")


def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed."""
    # Its type stub asks for an argument that the function has a default for.
    bundle: Callable[[], str] = vl_convert.javascript_bundle  # type: ignore[assignment]
    return bundle()


def _script(text: str) -> Markup:
    """For a script element: nothing in it may end the element."""
    return Markup(text.replace("</script", "<\\/script").replace("<!--", "<\\!--"))  # noqa: S704 - the library's and ours


def _requests(record: Record) -> Rows:
    """For :data:`REQUEST_COLUMNS`."""
    seconds = record.ended - record.started
    rows = []
    for name in sorted({second.name for second in record.seconds}):
        seen = Summary.of((second for second in record.seconds if second.name == name), seconds)
        rows.append(
            [
                name,
                f"{seen.answered:,}",
                words.failed(seen),
                words.rate(seen.rate),
                *(words.latency(seen.percentile_ms(percent)) for percent in overview.PERCENTILES),
                words.latency(seen.slowest_ms),
            ]
        )
    return rows


def _spread(record: Record, found: list[Spread]) -> Rows:
    """For :data:`_SPREAD_COLUMNS`."""
    names = pods.short_names(record)
    return [
        [
            words.elapsed(spread.at - int(record.started)),
            str(len(spread.pods)),
            names[pod.pod],
            f"{pod.actors:,}",
            words.percent(pod.share),
            words.percent(spread.ideal),
            words.percent(pod.predicted),
            f"{(pod.share - pod.predicted) * 100:+.1f}",
            f"± {pod.scatter * 100:.1f}",
        ]
        for spread in found
        for pod in spread.pods
    ]


def _pods(record: Record) -> Rows:
    """For :data:`POD_COLUMNS`."""
    names = pods.short_names(record)
    rows = []
    for name, samples in pods.seen(record).items():
        _, last = samples[-1]
        first_seen, last_seen = (words.elapsed(at - int(record.started)) for at in (samples[0][0], samples[-1][0]))
        most: Counter[str] = Counter()
        for _, pod in samples:
            most |= Counter(pod.active_actors or {})
        rows.append(
            [
                names[name],
                name,
                last.node,
                last.ip,
                f"{first_seen} to {last_seen}",
                str(last.restarts),
                f"{most.total():,}",
            ]
        )
    return rows


def _failures(record: Record) -> Rows:
    """The most frequent first."""
    ordered = sorted(record.failures, key=lambda failure: -failure.count)
    return [[failure.name, f"{failure.count:,}", failure.error] for failure in ordered]


def _event(number: int, event: Event, record: Record) -> dict[str, Any]:
    return {
        "number": number,
        "kind": event.kind,
        "text": event.text,
        "elapsed": words.elapsed(event.at - int(record.started)),
        "clock": words.clock(event.at),
    }
