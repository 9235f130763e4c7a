"""The palette for people with every kind of dichromacy, and on both backgrounds."""

import re
from itertools import combinations
from pathlib import Path

import pytest
from actor_load import palette
from actor_load.report.marks import KINDS
from coloraide.everything import ColorAll as Color

LOAD_TESTS = Path(__file__).parents[1]
COLOURS = pytest.mark.parametrize("colours", [palette.LIGHT, palette.DARK], ids=["light", "dark"])

APART = 16
"""CAM02-UCS: what Petroff asks of a sequence of ten colours, with the same simulation as here ("Accessible Color
Sequences for Data Visualization", https://arxiv.org/abs/2107.02270)."""

GRAPHIC, TEXT = 3, 4.5
"""WCAG 2.2, success criteria 1.4.11 and 1.4.3: the contrast with what is around it."""


def seen(colour, sight):
    """The colour as people with that sight see it: Machado, Oliveira and Fernandes 2009, at its full severity."""
    if sight == "every colour":
        return Color(colour)
    return Color(colour).filter(sight, 1, method="machado").fit("srgb", method="clip")


def pairs(names, colours, sight):
    """Two names -> how far their colours are apart."""
    sees = {name: seen(colours[name], sight) for name in names}
    return {(one, other): sees[one].delta_e(sees[other], method="cam02") for one, other in combinations(sees, 2)}


@COLOURS
@pytest.mark.parametrize("sight", ["every colour", "protan", "deutan", "tritan"])
@pytest.mark.parametrize(
    "names",
    [
        pytest.param([*(name for name in palette.LIGHT if name.startswith("series-")), "bad"], id="lines and areas"),
        pytest.param(KINDS, id="events"),
    ],
)
def test_what_stands_in_one_chart_is_told_apart(names, sight, colours):
    assert {pair: distance for pair, distance in pairs(names, colours, sight).items() if distance < APART} == {}


@COLOURS
def test_text_and_lines_stand_out_from_both_backgrounds(colours):
    for name in set(colours) - {"paper", "panel", "grid"}:
        for background in ("paper", "panel"):
            contrast = Color(colours[name]).contrast(colours[background], method="wcag21")
            assert contrast >= (GRAPHIC if name.startswith("series-") else TEXT), (name, background)


def test_a_light_and_a_dark_page_have_the_same_names():
    assert set(palette.LIGHT) == set(palette.DARK)


def test_nothing_that_draws_has_a_colour_of_its_own():
    drawn = [path for path in LOAD_TESTS.rglob("*") if path.suffix in {".py", ".css", ".j2", ".js", ".html"}]
    own = {
        (path.name, colour)
        for path in drawn
        if path.name != "palette.py" and path.parent.name != "tests"
        for colour in re.findall(r"#(?:[0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b|scheme=", path.read_text(encoding="utf-8"))
    }
    assert own == set()
