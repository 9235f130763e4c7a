"""Every colour of what the load tests and the bench draw, by name, for a light and a dark page.

A chart names them as CSS variables, and a picture has the light ones. Colours that stand together in a chart are told
apart with every kind of dichromacy, and all stand out from both backgrounds: `load-tests/tests/test_palette.py` says by
how much.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

LIGHT: Final[Mapping[str, str]] = {
    "paper": "#ffffff",
    "panel": "#f6f7f9",
    "ink": "#1b1f24",
    "muted": "#59636e",
    "grid": "#e3e6ea",
    "good": "#187961",
    "bad": "#b60c00",
    "warn": "#8a5a00",
    "phase": "#333a44",
    "action": "#b624c2",
    "settled": "#187961",
    "problem": "#b60c00",
    "series-1": "#24619e",
    "series-2": "#c27918",
    "series-3": "#009e92",
    "series-4": "#f33d79",
    "series-5": "#24316d",
    "series-6": "#616149",
    "series-7": "#aa6dff",
    "series-8": "#493131",
}

DARK: Final[Mapping[str, str]] = {
    "paper": "#14171c",
    "panel": "#1d2127",
    "ink": "#e8eaed",
    "muted": "#a4adb8",
    "grid": "#333a44",
    "good": "#86ffb6",
    "bad": "#ff4955",
    "warn": "#e3b341",
    "phase": "#a4adb8",
    "action": "#ce55ff",
    "settled": "#86ffb6",
    "problem": "#ff4955",
    "series-1": "#61b6e7",
    "series-2": "#ffaa18",
    "series-3": "#00f3f3",
    "series-4": "#c26d86",
    "series-5": "#6d6dff",
    "series-6": "#ffe792",
    "series-7": "#86619e",
    "series-8": "#b6c2aa",
}

SERIES: Final = tuple(f"var(--{name})" for name in LIGHT if name.startswith("series-"))
INK: Final = "var(--ink)"
MUTED: Final = "var(--muted)"
GRID: Final = "var(--grid)"
PAPER: Final = "var(--paper)"
BAD: Final = "var(--bad)"


def css(colours: Mapping[str, str]) -> str:
    """Declarations of the variables."""
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


def in_light(spec: dict[str, Any]) -> dict[str, Any]:
    """A chart with the colours themselves in the place of their names."""
    text = json.dumps(spec)
    for name, value in LIGHT.items():
        text = text.replace(f"var(--{name})", value)
    result: dict[str, Any] = json.loads(text)
    return result
