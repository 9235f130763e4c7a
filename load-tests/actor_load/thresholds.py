"""Thresholds as data: ``turn:p95<300``, ``turn@overload:failed<1%``, ``all:rate>=10!abort``.

What is judged, perhaps in which phase, a metric, a bound. A turn belongs to the phase in which it was due, however late
it is answered; any other request to that in which it was answered. What failed is no rate, and has no percentiles.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any, Final, cast

from actor_load.phases import NAMES
from actor_load.record import Check, PhaseName, Summary
from actor_load.subjects import ALL, belongs, of

ABORT: Final = "!abort"
_COMPARED: Final = {"<=": le, "<": lt, ">=": ge, ">": gt}
_MILLISECONDS: Final = {"": 1.0, "ms": 1.0, "s": 1000.0}
_FORM: Final = re.compile(
    r"(?P<what>[^,:@]+?)\s*(?:@\s*(?P<phase>[^,:@]*?)\s*)?:\s*(?P<metric>[a-zA-Z0-9.]+)\s*(?P<compared><=|<|>=|>)\s*"
    r"(?P<bound>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|%|/s)?"
    rf"(?P<abort>{ABORT})?(?=[\s,]|$)"
)
_BETWEEN: Final = re.compile(r"[\s,]*")
_EXAMPLE: Final = "turn:p95<300, turn@overload:failed<1% or call:rate>50"


@dataclass(frozen=True)
class Threshold:
    """One bound that a run is held to."""

    what: str
    """A key of :data:`actor_load.subjects.GROUPS`, or the name of a request."""
    phase: PhaseName | None
    """``None``: the whole run."""
    metric: str
    """``rate`` (answered without failure in a second), ``failed`` (share of the answered, in %), ``max`` (ms, of all),
    or a percentile as ``p99.9`` (ms, of those that did not fail)."""
    compared: str
    bound: float
    """In the metric's unit."""
    abort: bool = False
    """The run ends once it is broken for good."""
    written: str = ""
    """As it was asked for."""

    @property
    def name(self) -> str:
        """``p95 of turns in overload``."""
        return f"{self.metric} of {of(self.what)}" + (f" in {self.phase}" if self.phase else "")

    @property
    def unit(self) -> str:
        """Behind a number."""
        return {"rate": "/s", "failed": " %"}.get(self.metric, " ms")

    def counts(self, name: str) -> bool:
        """Whether requests of this name are among those it is of."""
        return belongs(name, self.what)

    def check(self, seen: Summary) -> Check:
        """Judges what was seen of them; where nothing was answered it is broken."""
        measured = self._measured(seen)
        if measured is None:
            where = f" in {self.phase}" if self.phase else ""
            detail = f"{self.metric} of {of(self.what)}{where} is unknown, none was answered: {self.written} is broken"
            return Check(name=self.name, passed=False, detail=detail)
        passed = _COMPARED[self.compared](measured, self.bound)
        value = _apart(measured, self.bound) + self.unit
        detail = f"{self.name} is {value}: {self.written} {'holds' if passed else 'is broken'}"
        return Check(name=self.name, passed=passed, detail=detail)

    def _measured(self, seen: Summary) -> float | None:
        if not seen.answered:
            return None
        if self.metric == "rate":
            return seen.rate if seen.duration > 0 else None
        if self.metric == "failed":
            return seen.error_rate * 100
        return seen.slowest_ms if self.metric == "max" else seen.percentile_ms(float(self.metric[1:]))


def parse(text: str) -> list[Threshold]:
    """All of a list with commas or blanks between them.

    Raises:
        ValueError: one is none; the message says what is wrong with it, and the mend.
    """
    found, at = [], _end(_BETWEEN, text, 0)
    while at < len(text):
        match = _FORM.match(text, at)
        if match is None:
            raise ValueError(f"{_first(text[at:])!r} is no threshold: write it as {_EXAMPLE}")
        found.append(_read(match))
        at = _end(_BETWEEN, text, match.end())
    return found


def given(settings: Mapping[str, Any]) -> list[Threshold]:
    """Those among options, by their names: ``threshold``, and the short forms for all requests together."""
    found = []
    for option, metric, compared, scale in (
        ("max_p95", "p95", "<=", 1),
        ("max_p99", "p99", "<=", 1),
        ("max_error_rate", "failed", "<=", 100),
        ("min_rate", "rate", ">=", 1),
    ):
        if settings.get(option) not in {None, ""}:
            bound = float(settings[option])
            written = f"--{option.replace('_', '-')} {bound:g}"
            found.append(Threshold(ALL, None, metric, compared, bound * scale, written=written))
    return [*found, *parse(settings.get("threshold") or "")]


def _read(match: re.Match[str]) -> Threshold:
    written = match[0]
    metric, unit = match["metric"].lower(), match["unit"] or ""
    percent = re.fullmatch(r"p(\d+(?:\.\d+)?)", metric)
    if metric not in {"max", "rate", "failed"} and not (percent and 0 < float(percent[1]) < 100):
        raise ValueError(f"{written!r} has no metric {metric}: p50, p95, p99, p99.9, max, rate and failed are some")
    units = {"rate": {"": 1.0, "/s": 1.0}, "failed": {"%": 1.0}}.get(metric, _MILLISECONDS)
    if unit not in units:
        wanted = {"rate": "a number a second, as rate>50", "failed": "a share in %, as failed<1%"}
        raise ValueError(f"{written!r} must have {wanted.get(metric, 'a time, as 300, 300ms or 2s')}")
    phase = match["phase"]
    if phase is not None and phase not in NAMES:
        raise ValueError(f"{written!r} has no phase {phase!r}: it is one of {', '.join(NAMES)}")
    return Threshold(
        match["what"],
        cast("PhaseName | None", phase),
        metric,
        match["compared"],
        float(match["bound"]) * units[unit],
        match["abort"] is not None,
        written,
    )


def _first(text: str) -> str:
    return text.partition(",")[0].strip()


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _apart(measured: float, bound: float) -> str:
    """As text, with as many digits as tell it from the bound: "300 ms is broken by 300 ms" helps nobody."""
    value = ""
    for digits in range(2, 17):
        value, limit = (f"{number:.{digits}f}".rstrip("0").rstrip(".") for number in (measured, bound))
        if value != limit or measured == bound:
            break
    return value
