"""One picture of the run, for a README or a chat: drawn from the page's charts, without a browser."""

from math import ceil
from textwrap import shorten
from typing import Any, Final, Literal

import altair as alt
import vl_convert

from actor_load.palette import INK, MUTED, in_light
from actor_load.record import Record
from actor_load.report import overview, series
from actor_load.report.charts import CORES, Data, TimeChart, coloured, configured, kind_colour, safe, unchecked
from actor_load.report.figures import Figure, Figures
from actor_load.report.marks import Mark, gravest_first
from actor_load.subjects import present

WIDTH: Final = 1600
"""Pixels of the whole picture, or next to it."""

FONT: Final = "Liberation Sans, sans-serif"
"""vl-convert has it inside, so a machine without fonts draws the same."""

_SCALE: Final = 1.5
_PLOT: Final = 966
_AXIS: Final = 52
_TILES: Final = 5
_KNEE_HEIGHT: Final = 72
_TILE_WIDTH: Final = (_PLOT + _AXIS) / _TILES
_LANES: Final = 6
_LANE_HEIGHT: Final = 16
_CHARACTER_WIDTH: Final = 6.6
_LONGEST: Final = 60


def draw(record: Record) -> bytes:
    """The PNG."""
    with unchecked():
        return vl_convert.vegalite_to_png(spec(record), scale=_SCALE)


def spec(record: Record) -> dict[str, Any]:
    figures = Figures(record)
    first, *others = present(record)
    found = [
        figures.throughput(first, height=130),
        figures.latency(first, height=190),
        *(figures.throughput(what, height=130) for what in others),
        figures.placement(height=170),
        _cpu(record, figures),
    ]
    panels = [figure for figure in found if figure]
    data: Data = {}
    charts: list[Any] = [_header(record, data)]
    if figures.marks:
        charts.append(_strip(figures, data))
    for figure in panels:
        assert isinstance(figure.chart, TimeChart)  # noqa: S101 - those above are
        data |= figure.chart.data()
        drawn = figure.chart.draw(zoomed=False, height=figure.height, width=_PLOT)
        charts.append(drawn.properties(title=alt.TitleParams(figure.title, offset=6)))
    whole = alt.vconcat(*charts, spacing=14).resolve_scale(color="independent", x="independent", y="independent")
    spec = configured(whole, data, FONT, size=13)
    spec["background"] = "var(--paper)"
    spec["padding"] = 16
    return in_light(spec)


def _header(record: Record, data: Data) -> alt.LayerChart:
    """Title, verdict, checks that failed, the knee, and the headline's other figures as tiles."""
    tiles = overview.headline(record)
    knee = tiles.pop(0) if record.knee else None
    failed = overview.failed_checks(record)[:3]
    colour = "var(--good)" if record.passed else "var(--bad)"
    top = 56 + 18 * len(failed) + (_KNEE_HEIGHT if knee else 0)
    texts = [
        {"x": 0, "y": 10, "text": record.title, "kind": "title", "colour": INK},
        {"x": 0, "y": 36, "text": overview.verdict(record), "kind": "verdict", "colour": colour},
        *(
            {"x": 0, "y": 58 + 18 * index, "text": shorten(line, 150, placeholder=" …"), "kind": "name", "colour": INK}
            for index, line in enumerate(failed)
        ),
    ]
    if knee:
        texts += [
            {"x": 0, "y": top - _KNEE_HEIGHT + 24, "text": f"{knee.name} {knee.value}", "kind": "knee", "colour": INK},
            {"x": 0, "y": top - _KNEE_HEIGHT + 52, "text": knee.note, "kind": "name", "colour": MUTED},
        ]
    for index, tile in enumerate(tiles):
        x, y = (index % _TILES) * _TILE_WIDTH, top + 12 + (index // _TILES) * 50
        texts.append({"x": x, "y": y, "text": tile.name, "kind": "name", "colour": MUTED})
        texts.append({"x": x, "y": y + 20, "text": tile.value, "kind": "value", "colour": INK})
    data["header"] = texts
    height = top + 50 * ceil(len(tiles) / _TILES)
    base = alt.Chart(alt.NamedData("header")).encode(
        x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=[_AXIS, _AXIS + _PLOT], nice=False)),  # begins where axes do
        y=alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[height, 0], nice=False)),
        text="text:N",
        color=alt.Color("colour:N", scale=None),
    )
    sizes: dict[str, tuple[int, Literal["bold", "normal"]]] = {
        "title": (22, "bold"),
        "knee": (34, "bold"),
        "verdict": (16, "bold"),
        "name": (13, "normal"),
        "value": (20, "bold"),
    }
    layers = [
        base.transform_filter(f"datum.kind == '{kind}'").mark_text(
            align="left", baseline="middle", fontSize=size, fontWeight=weight
        )
        for kind, (size, weight) in sizes.items()
    ]
    return alt.LayerChart(layer=layers).properties(width=_PLOT, height=height)


def _strip(figures: Figures, data: Data) -> alt.Chart:
    """What happened, in words, one below the other where there is no room beside; the gravest has the first choice."""
    start, end = figures.span.domain
    lanes: list[list[tuple[float, float]]] = [[] for _ in range(_LANES)]
    rows: list[dict[str, Any]] = []
    left_out = 0
    for mark in gravest_first(figures.marks):
        text = shorten(f"{mark.label}  {_what(mark)}", _LONGEST, placeholder=" …")
        width = len(text) * _CHARACTER_WIDTH + 14
        x = (mark.at - start) / (end - start) * _PLOT
        x = min(x, _PLOT - width)
        for number, lane in enumerate(lanes):
            if all(x >= to or x + width <= since for since, to in lane):
                lane.append((x, x + width))
                rows.append({"x": x, "y": (number + 0.5) * _LANE_HEIGHT, "text": text, "kind": mark.kind})
                break
        else:
            left_out += 1
    if left_out:
        rows.append({"x": 0, "y": (_LANES + 0.5) * _LANE_HEIGHT, "text": f"and {left_out} more", "kind": "phase"})
    data["strip"] = rows
    height = _LANE_HEIGHT * (sum(map(bool, lanes)) + bool(left_out))
    texts: alt.Chart = (
        alt.Chart(alt.NamedData("strip"))
        .mark_text(align="left", baseline="middle", fontSize=12)
        .encode(
            x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, _PLOT], nice=False)),
            y=alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[height, 0], nice=False)),
            text="text:N",
            color=kind_colour(),
        )
    )
    return texts.properties(width=_PLOT, height=height)


def _what(mark: Mark) -> str:
    """Without number and time, which the charts have."""
    return "; ".join(part.split(" ", 2)[2] for part in mark.text.split("; ") if part.count(" ") >= 2)


def _cpu(record: Record, figures: Figures) -> Figure | None:
    """Of all pods together, container by container, and of the generator."""
    points = []
    for sample in record.placement:
        cores: dict[str, float] = {}
        for pod in sample.pods:
            for name, used in pod.containers.items():
                if used.cpu_cores is not None:
                    label = safe(f"{name}, all pods")
                    cores[label] = cores.get(label, 0.0) + used.cpu_cores
        points.append((sample.at, cores))
    latest: dict[str, float] = {}
    for at, of in series.by_process(record):
        latest |= of
        points.append((at, {"load generator": sum(latest.values())}))
    names = sorted({name for _, cores in points for name in cores})
    if not names:
        return None
    rows = series.gauges(points, figures.span, mean=True)
    return Figure(
        "CPU, cores",
        "",
        "",
        TimeChart("CPU", rows, coloured(names), figures.span, figures.marks, unit=CORES),
        height=110,
    )
