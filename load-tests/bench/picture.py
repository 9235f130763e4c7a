"""A picture of a run: what a turn takes, by process, and how many turns a second beside the peer's."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import altair as alt
import vl_convert

from bench.report import Summary
from bench.systems import PEER

BAR: Final = 34
"""Pixels for a system."""
WIDTH: Final = 560
SCALE: Final = 1.5
FONT: Final = "Liberation Sans, sans-serif"
"""vl-convert has it inside, so a machine without fonts draws the same."""


def draw(summaries: Iterable[Summary], about: str) -> bytes:
    """The PNG, at the most clients that were measured; ``about`` is its subtitle."""
    return vl_convert.vegalite_to_png(spec(summaries, about), scale=SCALE)


def spec(summaries: Iterable[Summary], about: str) -> dict[str, Any]:
    """The same as Vega-Lite."""
    found = list(summaries)
    most = max(summary.clients for summary in found)
    shown = [summary for summary in found if summary.clients == most]
    title = alt.TitleParams(f"A turn, at {most} clients", subtitle=about, anchor="start")
    chart = alt.hconcat(_cpu(shown), _speed(shown), spacing=30).properties(title=title, padding=16, background="white")
    drawn: dict[str, Any] = chart.configure(font=FONT).configure_view(stroke=None).to_dict()
    return drawn


def _cpu(shown: Sequence[Summary]) -> Any:
    rows = [
        {"system": summary.system, "process": process, "ms": milliseconds}
        for summary in shown
        for process, milliseconds in summary.by_process.items()
    ]
    return (
        alt.Chart(alt.Data(values=rows), width=WIDTH, height=BAR * len(shown))
        .mark_bar()
        .encode(
            y=alt.Y("system:N", sort=[summary.system for summary in shown], title=None),
            x=alt.X("ms:Q", title="milliseconds of CPU a turn"),
            color=alt.Color("process:N", title=None, scale=alt.Scale(scheme="tableau20"), legend=alt.Legend(columns=1)),
        )
    )


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
    bars = base.mark_bar(color="#8a94a3").encode(x=alt.X("turns:Q", title=f"turns a second, and to the {PEER}'s"))
    spread = base.mark_rule(strokeWidth=2, color="#1b1f24").encode(x="least:Q", x2="most:Q")
    ratio = base.mark_text(align="left", dx=6, fontWeight="bold").encode(x="most:Q", text="ratio:N")
    return alt.layer(bars, spread, ratio)
