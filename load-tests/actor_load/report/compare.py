"""One run against another: what got worse, as a section of the report.

Only what says something is judged. A percentile with fewer than ten requests beyond it is chance. A search for the knee
goes its own way in each run, so its steps, its overload, and the whole run around them are shown and not judged: the
knee is what they are for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from actor_load import words
from actor_load.errors import LoadError
from actor_load.record import Check, PhaseName, Record, Section, Summary, Table
from actor_load.report.overview import PERCENTILES
from actor_load.subjects import of, phases_of, present, summary

BEYOND: Final = 10
"""Requests that have to be slower than a percentile, in both runs, for it to be judged."""

FEW_FAILED: Final = 0.001
"""A share of failed requests may grow by as much: one of a thousand is chance."""

SEARCH: Final[frozenset[PhaseName]] = frozenset({"step", "overload"})
COLUMNS: Final = ["of", "phase", "figure", "old", "new", "change", ""]


@dataclass(frozen=True)
class _Row:
    of: str
    phase: str
    figure: str
    old: float
    new: float | None
    """``None`` where only the old run has it."""
    shown: tuple[str, str]
    higher_is_better: bool
    judged: bool
    slack: float = 0.0
    """What is added to the tolerance."""

    def verdict(self, tolerance: float) -> str:
        if not self.judged:
            return "not judged"
        if self.new is None:
            return "WORSE"
        gain = self.new - self.old if self.higher_is_better else self.old - self.new
        allowed = abs(self.old) * tolerance + self.slack
        return "WORSE" if gain < -allowed else "better" if gain > allowed else ""

    @property
    def change(self) -> str:
        return "-" if self.new is None or not self.old else f"{(self.new / self.old - 1) * 100:+.1f} %"

    @property
    def text(self) -> str:
        return f"{self.figure} of {self.of}{f' in {self.phase}' if self.phase else ''} {' -> '.join(self.shown)}"


def compare(old: Record, new: Record, tolerance: float) -> Section:
    """What changed from ``old`` to ``new``, with a check that fails where something is worse by more than ``tolerance``
    (0.1: a tenth).

    Raises:
        LoadError: the two have no figure in common.
    """
    rows = [*_knees(old, new), *_traffic(old, new)]
    if not rows:
        raise LoadError(
            f"{old.title} and {new.title} have no figure in common: compare two runs of one scenario or shape"
        )
    verdicts = [row.verdict(tolerance) for row in rows]
    worse = [row.text for row, verdict in zip(rows, verdicts, strict=True) if verdict == "WORSE"]
    judged = sum(row.judged for row in rows)
    bound = f"by more than {words.percent(tolerance)}"
    detail = f"{len(worse)} of {judged} figures are worse {bound}" + (f": {'; '.join(worse)}" if worse else "")
    return Section(
        title=f"Against {old.title} of {words.clock(old.started)}",
        text=" ".join(["Old is that run, new is this one.", *_differences(old, new)]),
        started=new.started,
        ended=new.ended,
        tables=[
            Table(
                title=f"Worse: {bound}",
                columns=COLUMNS,
                rows=[
                    [row.of, row.phase or "-", row.figure, *row.shown, row.change, verdict]
                    for row, verdict in zip(rows, verdicts, strict=True)
                ],
            )
        ],
        checks=[Check(name="nothing is worse than before", passed=not worse, detail=detail)],
    )


def _differences(old: Record, new: Record) -> Iterator[str]:
    """Settings and versions that are not the same: the change may be theirs."""
    for before, after in ((old.settings, new.settings), (old.versions, new.versions)):
        for name in sorted(before.keys() | after.keys()):
            values = [of.get(name, "default") for of in (before, after)]
            if values[0] != values[1]:
                yield f"{name}: {' -> '.join(values)}."


def _knees(old: Record, new: Record) -> Iterator[_Row]:
    """Of sections that both have, as far as the old one found one."""
    sections = {section.title: section for section in new.sections}
    for before in old.sections:
        after = sections.get(before.title)
        if before.knee and after:
            then, now = before.knee.rate, after.knee.rate if after.knee else None
            shown = f"{words.rate(then)}/s", "none" if now is None else f"{words.rate(now)}/s"
            yield _Row(before.title, "", "knee", then, now, shown, higher_is_better=True, judged=True)


def _traffic(old: Record, new: Record) -> Iterator[_Row]:
    searched = bool(SEARCH & ({*phases_of(old)} | {*phases_of(new)}))
    for what in present(old):
        for phase in (None, *phases_of(old)):
            seen = summary(old, what, phase), summary(new, what, phase)
            if all(one.answered for one in seen):
                usual = not searched if phase is None else phase not in SEARCH
                yield from _figures(of(what), phase or "", *seen, usual=usual)


def _figures(what: str, phase: str, old: Summary, new: Summary, *, usual: bool) -> Iterator[_Row]:
    rates = words.rate(old.rate) + "/s", words.rate(new.rate) + "/s"
    yield _Row(what, phase, "rate", old.rate, new.rate, rates, higher_is_better=True, judged=usual)
    shares = old.error_rate, new.error_rate
    shown = words.percent(shares[0]), words.percent(shares[1])
    yield _Row(what, phase, "failed", *shares, shown, higher_is_better=False, judged=usual, slack=FEW_FAILED)
    for percent in PERCENTILES:
        before, after = old.percentile_ms(percent), new.percentile_ms(percent)
        if before is not None and after is not None:
            fewest = min(one.answered - one.failed for one in (old, new))
            yield _Row(
                what,
                phase,
                f"p{percent:g}",
                before,
                after,
                (words.latency(before), words.latency(after)),
                higher_is_better=False,
                judged=usual and fewest * (100 - percent) / 100 >= BEYOND,
            )
