"""A picture of a run: what a turn takes, by process, and how many turns a second beside the peer's."""

from collections.abc import Iterable, Mapping, Sequence
from string import ascii_lowercase
from typing import Any, Final, Literal

import altair as alt
import vl_convert
from actor_load.palette import INK, MUTED, PAPER, SERIES, in_light

from bench.report import Summary
from bench.systems import PEER

BAR: Final = 34
"""Pixels for a system."""
WIDTH: Final = 560
SCALE: Final = 1.5
FONT: Final = "Liberation Sans, sans-serif"
"""vl-convert has it inside, so a machine without fonts draws the same."""
SMALLEST: Final = 0.02
"""Of the longest bar: a part of a bar that is smaller has no room for its letter."""


def draw(summaries: Iterable[Summary], about: str) -> bytes:
    """The PNG, at the most clients that were measured; ``about`` is its subtitle."""
    return vl_convert.vegalite_to_png(spec(summaries, about), scale=SCALE)


def spec(summaries: Iterable[Summary], about: str) -> dict[str, Any]:
    """The same as Vega-Lite."""
    found = list(summaries)
    most = max(summary.clients for summary in found)
    shown = [summary for summary in found if summary.clients == most]
    title = alt.TitleParams(f"A turn, at {most} clients", subtitle=about, anchor="start")
    chart = alt.hconcat(_cpu(shown), _speed(shown), spacing=30).properties(title=title, padding=16, background=PAPER)
    drawn: dict[str, Any] = chart.configure(font=FONT).configure_view(stroke=None).to_dict()
    return in_light(drawn)


def bars(
    spent: Mapping[str, Mapping[str, float]], names: Iterable[str], along: Literal["x", "y"], title: str | None = None
) -> Any:
    """Stacked bars ``along`` an axis: name of a bar -> process -> milliseconds of CPU a turn. ``title`` says what the
    names are.

    ``names`` are those of all processes that the picture tells apart. There are more than colours: each has a letter
    as well, which stands in the legend and in its part of a bar.
    """
    letters = dict(zip(sorted(set(names)), ascii_lowercase, strict=False))
    longest = max((sum(of.values()) for of in spent.values()), default=0)
    rows = [
        {
            "bar": bar,
            "process": process,
            "ms": milliseconds,
            "shown": f"{letters[process]}  {process}",
            "letter": letters[process] if milliseconds >= SMALLEST * longest else "",
        }
        for bar, of in spent.items()
        for process, milliseconds in of.items()
    ]
    length: Any = {"field": "ms", "type": "quantitative", "stack": "zero"}
    unit = "milliseconds of CPU a turn"
    order = alt.Order("process:N", sort="ascending" if along == "x" else "descending")  # as the legend has them
    base = alt.Chart(alt.Data(values=rows)).encode(order=order)
    middle: Any = {"bandPosition": 0.5}
    if along == "x":
        base = base.encode(y=alt.Y("bar:N", sort=list(spent), title=title))
        drawn, text = base.encode(x=alt.X(**length, title=unit)), base.encode(x=alt.X(**length, **middle))
    else:
        base = base.encode(x=alt.X("bar:N", sort=list(spent), title=title, axis=alt.Axis(labelAngle=0)))
        drawn, text = base.encode(y=alt.Y(**length, title=unit)), base.encode(y=alt.Y(**length, **middle))
    colours = alt.Scale(
        domain=[f"{letter}  {process}" for process, letter in letters.items()],
        range=[SERIES[index % len(SERIES)] for index in range(len(letters))],
    )
    legend = alt.Legend(title=None, columns=1)
    return alt.layer(
        drawn.mark_bar(stroke=PAPER, strokeWidth=1).encode(color=alt.Color("shown:N", scale=colours, legend=legend)),
        text.mark_text(color=PAPER, fontWeight="bold").encode(detail="process:N", text="letter:N"),
    )


def _cpu(shown: Sequence[Summary]) -> Any:
    names = [process for summary in shown for process in summary.by_process]
    drawn = bars({summary.system: summary.by_process for summary in shown}, names, "x")
    return drawn.properties(width=WIDTH, height=BAR * len(shown))


def _speed(shown: Sequence[Summary]) -> Any:
    rows = [
        {
            "system": summary.system,
            "turns": summary.turns_per_second.median,
            "least": summary.turns_per_second.least,
            "most": summary.turns_per_second.most,
            "ratio": f"{summary.to_peer.median:.2f}x" if summary.to_peer else "",
        }
        for summary in shown
    ]
    base = alt.Chart(alt.Data(values=rows), width=WIDTH // 2, height=BAR * len(shown)).encode(
        y=alt.Y("system:N", sort=[summary.system for summary in shown], title=None, axis=None)
    )
    turns = alt.X("turns:Q", title=f"turns a second, and to the {PEER}'s")
    medians = base.mark_bar(color=MUTED, opacity=0.6).encode(x=turns)
    spread = base.mark_rule(strokeWidth=2, color=INK).encode(x="least:Q", x2="most:Q")
    ratio = base.mark_text(align="left", dx=6, fontWeight="bold").encode(x="most:Q", text="ratio:N")
    return alt.layer(medians, spread, ratio)
