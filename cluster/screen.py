"""How commands show things in a terminal, and in a file that their output goes to."""

from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

FILE_COLUMNS: Final = 120


def console() -> Console:
    """A console that changes nothing in what it is given but the line breaks."""
    shown = Console(highlight=False, emoji=False)
    if not shown.is_terminal:
        shown.width = FILE_COLUMNS
    return shown


def table(title: str, *columns: str) -> Table:
    """An empty table; what is too long for its column goes on in the next line."""
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    return shown
