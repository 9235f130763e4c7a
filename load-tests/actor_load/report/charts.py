"""How a chart looks: Vega-Lite, by Altair. The page shows them with Vega, the picture is drawn from the same ones."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil, floor, log10
from typing import Any, Final, Literal

import altair as alt
from altair.utils.schemapi import debug_mode

from actor_load.palette import BAD, GRID, INK, MUTED, PAPER, SERIES
from actor_load.report.marks import KINDS, Mark, labelled
from actor_load.report.series import Row, Span

MILLISECONDS: Final = "datum.value < 1000 ? format(datum.value, '~r') + ' ms' : format(datum.value / 1000, '~r') + ' s'"
PLAIN: Final = "format(datum.value, ',~g')"
MIB: Final = "format(datum.value, ',~r') + ' MiB'"
CORES: Final = "format(datum.value, '~g')"
PERCENT: Final = "format(datum.value, '.0%')"

DASHES: Final = ((1, 0), (6, 2), (2, 2))
ALIKE: Final = 4
"""Lines of a chart that have the same dash: of more, not all are told apart by colour alone at a glance."""

Data = dict[str, list[dict[str, Any]]]
"""Name -> rows, of what a chart draws."""

_TIME: Final = (
    "(toNumber({0}) < 3600000 ? '' : floor(toNumber({0}) / 3600000) + ':')"
    " + utcFormat({0}, toNumber({0}) < 3600000 ? '%-M:%S' : '%M:%S')"
)


@dataclass(frozen=True)
class Series:
    """One line or area."""

    name: str
    colour: str
    width: float = 1.75
    dash: tuple[int, ...] = (1, 0)


@dataclass(frozen=True)
class Limit:
    """A threshold, or what was found, drawn across."""

    value: float
    label: str
    colour: str = BAD


@dataclass(frozen=True)
class TimeChart:
    """Numbers over the time of a run."""

    name: str
    """Of its data; no other chart of a picture has it."""
    rows: Sequence[Row]
    series: Sequence[Series]
    span: Span
    marks: Sequence[Mark]
    unit: str = PLAIN
    """A Vega expression: ``datum.value`` as it is written at the axis and in the tooltip."""
    logarithmic: bool = False
    stacked: bool = False
    stepped: bool = False
    limits: Sequence[Limit] = field(default_factory=tuple)
    gaps: bool = False
    """Whether a bin without a value breaks a line: of samples, some bins have none only because they are narrow."""
    bars: str = ""
    """A series drawn as bars, with a triangle at the bottom: else a few of many would not be seen."""
    least_top: float = 1
    """The axis goes up to this at least."""

    def draw(self, *, zoomed: bool, height: int, width: int | Literal["container"] = "container") -> alt.LayerChart:
        """The chart.

        With ``zoomed`` its time axis goes from the parameter ``from`` to ``to``, and bins and events tell more when
        they are pointed at. Without, it has a legend.
        """
        base = alt.Chart(alt.NamedData(self.name)).encode(x=self._x(None, zoomed=zoomed))
        values = self._values(base, legend=not zoomed)
        # Only one layer has the axis: as they are independent, each would draw its own over those of the others.
        layers = [values.encode(x=self._x(_time_axis(), zoomed=zoomed))]
        if any(row.get("alone") for row in self.rows):
            alone = self._folded(base).transform_filter("datum.alone == 1")
            layers.append(alone.mark_point(filled=True, size=16, opacity=1, clip=True, aria=False))
        if any(row.get(self.bars) for row in self.rows):
            layers.extend(self._bars(base))
        layers.extend(self._limits())
        if zoomed:
            layers.append(self._told(base))
        if self.marks:
            layers.extend(self._events(zoomed=zoomed))
        chart: alt.LayerChart = alt.LayerChart(layer=layers).properties(width=width, height=height)
        chart = chart.resolve_axis(x="independent")
        chart = chart.resolve_scale(color="independent", strokeDash="independent", strokeWidth="independent")
        if zoomed:
            start, end = self.span.domain
            chart = chart.add_params(alt.param(name="from", value=start), alt.param(name="to", value=end))
        return chart

    def data(self) -> Data:
        """What the names of data in the chart stand for."""
        events = [{"at": mark.at, "kind": mark.kind, "text": mark.text} for mark in self.marks]
        return {self.name: [dict(row) for row in self.rows], self._event_data: events}

    @property
    def _event_data(self) -> str:
        return f"{self.name} events"

    @property
    def _until(self) -> str:
        """The end of a bin."""
        return f"datum.at + {self.span.width * 1000}"

    def _x(self, axis: alt.Axis | None, *, zoomed: bool) -> alt.X:
        start, end = self.span.domain
        if zoomed:
            scale = alt.Scale(type="utc", domainMin=alt.ExprRef("from"), domainMax=alt.ExprRef("to"), nice=False)
        else:
            scale = alt.Scale(type="utc", domain=[start, end], nice=False)
        return alt.X("at:T", title=None, scale=scale, axis=axis)

    def _y(self, name: str = "value") -> alt.Y:
        values = [value for row in self.rows for one in self.series if (value := row.get(one.name)) is not None]
        axis = alt.Axis(labelExpr=self.unit, minExtent=52, maxExtent=52, tickCount=5, domain=False, ticks=False)
        scale = alt.Scale(zero=True, nice=True)
        if self.logarithmic:
            ticks = decades(values)
            scale = alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False)
            axis.values, axis.tickCount = ticks, len(ticks)  # with a lower count Vega drops some of the values
        elif max(values, default=0) <= self.least_top:
            scale = alt.Scale(domain=[0, self.least_top])
        return alt.Y(f"{name}:Q", title=None, scale=scale, axis=axis, stack="zero" if self.stacked else None)

    def _folded(self, base: alt.Chart, *, legend: bool = False) -> alt.Chart:
        """A row for each point."""
        names = [one.name for one in self.series]
        lines: list[str | alt.FieldName] = [name for name in names if name != self.bars]
        chart: alt.Chart = base.transform_fold(lines, as_=["series", "value"])
        if not self.gaps:
            chart = chart.transform_filter("isValid(datum.value)")
        colours = alt.Scale(domain=names, range=[one.colour for one in self.series])
        return chart.encode(
            y=self._y(),
            color=alt.Color("series:N", scale=colours, legend=self._legend() if legend else None, sort=names),
        )

    def _legend(self) -> alt.Legend:
        symbol: Any = "square" if self.stacked else "stroke"
        return alt.Legend(
            title=None,
            orient="top",
            direction="horizontal",
            offset=4,
            symbolType=symbol,
            symbolSize=160,
            symbolStrokeWidth=3,
        )

    def _values(self, base: alt.Chart, *, legend: bool) -> alt.Chart:
        chart = self._folded(base, legend=legend)
        shape: Any = "step-after" if self.stepped else "linear"
        names = [one.name for one in self.series]
        if self.stacked:
            chart = chart.transform_calculate(index=f"indexof({names!r}, datum.series)").encode(order="index:Q")
            area: alt.Chart = chart.mark_area(
                interpolate=shape, stroke=PAPER, strokeWidth=0.6, opacity=1, clip=True, aria=False
            )
            return area
        dashes = alt.Scale(domain=names, range=[list(one.dash) for one in self.series])
        widths = alt.Scale(type="ordinal", domain=names, range=[one.width for one in self.series])
        chart = chart.encode(
            strokeDash=alt.StrokeDash("series:N", scale=dashes, legend=None),
            strokeWidth=alt.StrokeWidth("series:O", scale=widths, legend=None),
        )
        lines: alt.Chart = chart.mark_line(interpolate=shape, clip=True, aria=False, strokeJoin="round")
        return lines

    def _bars(self, base: alt.Chart) -> list[alt.Chart]:
        (colour,) = (one.colour for one in self.series if one.name == self.bars)
        some: alt.Chart = base.transform_filter(f"{_of(self.bars)} > 0").transform_calculate(until=self._until)
        bars = some.mark_rect(color=colour, clip=True, aria=False)
        triangles = some.mark_point(
            shape="triangle-up", filled=True, size=45, color=colour, opacity=1, clip=True, aria=False, yOffset=-4
        )
        return [
            bars.encode(x2="until:Q", y=self._y(self.bars), y2=alt.datum(0)),
            triangles.encode(y=alt.datum(0)),
        ]

    def _limits(self) -> list[alt.Chart]:
        layers = []
        for limit in self.limits:
            base = alt.Chart(alt.Data(values=[{"value": limit.value, "label": limit.label}])).encode(y=self._y())
            text = base.mark_text(align="right", baseline="bottom", dy=-3, color=limit.colour, fontSize=11, aria=False)
            layers.append(base.mark_rule(color=limit.colour, strokeDash=[6, 4], strokeWidth=1.25, aria=False))
            layers.append(text.encode(x=alt.value("width"), text="label:N"))
        return layers

    def _told(self, base: alt.Chart) -> alt.Chart:
        """A column over each bin that lights up and tells all its values."""
        pointed = alt.selection_point(name="pointed", on="pointerover", clear="pointerout", fields=["at"])
        written = {
            f"said{index}": f"isValid({_of(one.name)}) ? ({self.unit.replace('datum.value', _of(one.name))}) : '-'"
            for index, one in enumerate(self.series)
        }
        chart: alt.Chart = base.transform_calculate(until=self._until, time=_TIME.format("datum.at"), **written)
        tooltips = [alt.Tooltip(f"said{index}:N", title=one.name) for index, one in enumerate(self.series)]
        chart = chart.mark_rect(color=INK, clip=True, aria=False).encode(
            x2="until:Q",
            opacity=alt.condition(pointed, alt.value(0.14), alt.value(0), empty=False),
            tooltip=[alt.Tooltip("time:N", title="time"), *tooltips],
        )
        return chart.add_params(pointed)

    def _events(self, *, zoomed: bool) -> list[alt.Chart]:
        """Rules, and their numbers as an axis at the upper edge."""
        base = alt.Chart(alt.NamedData(self._event_data))
        dashes = alt.Scale(domain=KINDS, range=[[2, 3], [5, 3], [1, 0], [1, 0]])
        rules = base.mark_rule(strokeWidth=1.25, opacity=0.85, clip=True, aria=False).encode(
            x=self._x(_event_axis(labelled(self.marks, self.span)), zoomed=zoomed),
            color=kind_colour(),
            strokeDash=alt.StrokeDash("kind:N", legend=None, scale=dashes),
        )
        if not zoomed:
            return [rules]
        wide = base.mark_rule(strokeWidth=11, opacity=0.001, clip=True, aria=False)  # easy to point at
        return [rules, wide.encode(x=self._x(None, zoomed=zoomed), tooltip=alt.Tooltip("text:N", title="event"))]


@dataclass(frozen=True)
class Shares:
    """Shares of the pods: measured as bars, the ring's as diamonds, and an even spread as a rule."""

    name: str
    rows: Sequence[Mapping[str, float | str]]
    """``pod``, ``share``, ``predicted``, ``ideal`` (0 to 1), ``actors``."""

    def draw(self) -> alt.LayerChart:
        """The chart."""
        data = alt.Chart(alt.NamedData(self.name))
        base = data.encode(
            y=alt.Y("pod:N", title=None, sort=None, axis=alt.Axis(domain=False, ticks=False)),
            tooltip=[
                alt.Tooltip("pod:N"),
                alt.Tooltip("actors:Q", title="active actors", format=","),
                alt.Tooltip("share:Q", format=".1%"),
                alt.Tooltip("predicted:Q", title="the ring gives it", format=".1%"),
                alt.Tooltip("ideal:Q", title="an even spread", format=".1%"),
            ],
        )
        x = alt.X("share:Q", title=None, scale=alt.Scale(zero=True), axis=alt.Axis(format=".0%", tickCount=5))
        bars = base.mark_bar(color=SERIES[0], height={"band": 0.55}, aria=False).encode(x=x)
        even = data.mark_rule(strokeDash=[4, 3], color=INK, aria=False).encode(x="ideal:Q")
        ring = base.mark_point(
            shape="diamond",
            filled=True,
            size=110,
            color=SERIES[1],
            opacity=1,
            stroke=PAPER,
            strokeWidth=1.5,
            aria=False,
        ).encode(x="predicted:Q")
        return alt.LayerChart(layer=[bars, even, ring]).properties(width="container", height=26 * len(self.rows))

    def data(self) -> Data:
        """What the name of data in the chart stands for."""
        return {self.name: [dict(row) for row in self.rows]}


def configured(chart: alt.TopLevelMixin, data: Data, font: str, size: int = 12) -> dict[str, Any]:
    """The chart as Vega-Lite, with its data and the look that all have."""
    spec: dict[str, Any] = chart.to_dict(validate=False, format="vega-lite")
    spec["datasets"] = data
    spec["config"] = {
        "font": font,
        "background": "transparent",
        "view": {"stroke": None},
        "axis": {
            "labelColor": MUTED,
            "labelFontSize": size,
            "titleColor": MUTED,
            "gridColor": GRID,
            "domainColor": GRID,
            "tickColor": GRID,
            "labelFontWeight": "normal",
        },
        "legend": {"labelColor": INK, "labelFontSize": size},
        "title": {"color": INK, "fontSize": size + 2, "anchor": "start"},
        "text": {"fontSize": size},
    }
    return spec


@contextmanager
def unchecked() -> Iterator[None]:
    """Altair does not look at each piece of the charts made in the block whether it is valid.

    That takes seconds of a core; the tests let it look.
    """
    with debug_mode(False):
        yield


def kind_colour() -> alt.Color:
    """The colour of an event."""
    return alt.Color("kind:N", legend=None, scale=alt.Scale(domain=KINDS, range=[f"var(--{kind})" for kind in KINDS]))


def safe(label: str) -> str:
    """A label that Vega reads as the name of one field."""
    return re.sub(r"[\[\]\\.'\"]", "_", label)


def coloured(names: Sequence[str]) -> list[Series]:
    """Series for names that have no meaning of their own: 24 of them are told apart by colour and dash together."""
    return [
        Series(name, SERIES[index % len(SERIES)], dash=DASHES[index // ALIKE % len(DASHES)])
        for index, name in enumerate(names)
    ]


def decades(values: Sequence[float]) -> list[float]:
    """Ticks of a logarithmic axis that all values lie between: of 1, 10, 100, ... or, for few decades, finer ones."""
    low, high = floor(log10(min(values, default=1))), ceil(log10(max(values, default=10)))
    high = max(high, low + 1)
    steps = {1: (1, 2, 5), 2: (1, 2, 5), 3: (1, 3)}.get(high - low, (1,))
    ticks = [step * 10.0**power for power in range(low, high) for step in steps] + [10.0**high]
    first = max(tick for tick in ticks[:-1] if tick <= min(values, default=1))
    last = min(tick for tick in ticks if tick >= max(values, default=10) and tick > first)
    return [tick for tick in ticks if first <= tick <= last]


def _of(name: str) -> str:
    return f"datum[{name!r}]"


def _time_axis() -> alt.Axis:
    return alt.Axis(
        labelExpr=_TIME.format("datum.value"),
        grid=False,
        labelOverlap="greedy",
        labelFlush=False,
        labelSeparation=8,
        tickCount=8,
        orient="bottom",
    )


def _event_axis(marks: Sequence[Mark]) -> alt.Axis:
    labels = ", ".join(f"'{mark.at}': '{mark.label}'" for mark in marks)
    colours: Any = {
        "condition": [
            {
                "test": f"indexof({[mark.at for mark in marks if mark.kind == kind]}, toNumber(datum.value)) >= 0",
                "value": f"var(--{kind})",
            }
            for kind in KINDS
        ],
        "value": MUTED,
    }
    return alt.Axis(
        orient="top",
        values=[mark.at for mark in marks],
        labelExpr=f"{{{labels}}}[format(toNumber(datum.value), '.0f')]",
        labelOverlap="greedy",
        labelSeparation=2,
        labelBound=8,
        labelFontWeight="bold",
        labelColor=colours,
        domain=False,
        grid=False,
        ticks=False,
        labelPadding=2,
    )
