"""Colours by name, for a light and a dark page. A chart names them as CSS variables; the picture has the light ones.

The series are told apart with every kind of colour blindness (after Paul Tol's "vibrant" set), and stand out from both
backgrounds by 3:1 or more.
"""

import json
from typing import Any, Final

SERIES: Final = tuple(f"var(--series-{number})" for number in range(1, 11))
INK: Final = "var(--ink)"
MUTED: Final = "var(--muted)"
GRID: Final = "var(--grid)"
PAPER: Final = "var(--paper)"
BAD: Final = "var(--bad)"

LIGHT: Final = {
    "paper": "#ffffff",
    "panel": "#f6f7f9",
    "ink": "#1b1f24",
    "muted": "#59636e",
    "grid": "#e3e6ea",
    "good": "#0b7a4b",
    "bad": "#c0271a",
    "warn": "#8a5a00",
    "phase": "#59636e",
    "action": "#7a3fb0",
    "settled": "#0b7a4b",
    "problem": "#c0271a",
    "series-1": "#0077bb",
    "series-2": "#d9640f",
    "series-3": "#008f80",
    "series-4": "#c33b80",
    "series-5": "#1f8fc4",
    "series-6": "#8a6d00",
    "series-7": "#7b5cc4",
    "series-8": "#5b8f22",
    "series-9": "#a4443a",
    "series-10": "#6b7480",
}

DARK: Final = {
    "paper": "#14171c",
    "panel": "#1d2127",
    "ink": "#e8eaed",
    "muted": "#a4adb8",
    "grid": "#333a44",
    "good": "#3fbf87",
    "bad": "#ff7b6e",
    "warn": "#e3b341",
    "phase": "#a4adb8",
    "action": "#c49bf0",
    "settled": "#3fbf87",
    "problem": "#ff7b6e",
    "series-1": "#4aa8e8",
    "series-2": "#f28a3c",
    "series-3": "#2fbfae",
    "series-4": "#ec77b0",
    "series-5": "#86d3f7",
    "series-6": "#d4b13a",
    "series-7": "#ab91ee",
    "series-8": "#93c956",
    "series-9": "#e08277",
    "series-10": "#9aa4b1",
}


def css(colours: dict[str, str]) -> str:
    """Declarations of the variables."""
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


def in_light(spec: dict[str, Any]) -> dict[str, Any]:
    """A chart with the colours themselves in the place of their names."""
    text = json.dumps(spec)
    for name, value in LIGHT.items():
        text = text.replace(f"var(--{name})", value)
    result: dict[str, Any] = json.loads(text)
    return result
