"""The end of a run in the terminal: a screen of what the page has in full."""

import sys
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from actor_load.record import Figure, Record, Section
from actor_load.record import Table as Found
from actor_load.report import overview

_BETWEEN: Final = "   "
_LOG_COLUMNS: Final = 120


def console() -> Console:
    """What stdout is: a terminal, or a log, which is wide enough for every table."""
    return Console(width=None if sys.stdout.isatty() else _LOG_COLUMNS)


def show(record: Record, console: Console) -> None:
    """Prints verdict, headline, what each section found, and a line for each check that failed."""
    console.print()
    console.print(Text(record.title, "bold"))
    _print_figures(overview.headline(record), console)
    for warning in overview.warnings(record):
        console.print(Text(f"Mind: {warning}", "yellow"))
    for section in record.sections:
        show_section(section, console)
    console.print()
    for failed in overview.failed_checks(record):
        console.print(Text.assemble(("FAILED ", "bold red"), failed), soft_wrap=True)
    console.print(Text(overview.verdict(record), "bold green" if record.passed else "bold red"))


def show_section(section: Section, console: Console) -> None:
    """Prints its figures and tables."""
    console.print()
    console.print(Text(section.title, "bold"))
    _print_figures(section.figures, console)
    for table in section.tables:
        console.print(_table(table))


def _print_figures(figures: list[Figure], console: Console) -> None:
    """As many in a line as have room in it."""
    line = Text()
    for figure in figures:
        note = f" ({figure.note})" if figure.note else ""
        shown = Text.assemble((figure.name, "dim"), " ", (figure.value, "bold"), (note, "dim"))
        if line and line.cell_len + len(_BETWEEN) + shown.cell_len > console.width:
            console.print(line)
            line = Text()
        line = Text.assemble(line, _BETWEEN, shown) if line else shown
    if line:
        console.print(line)


def _table(found: Found) -> Table:
    table = Table(title=found.title, title_justify="left", title_style="dim", box=None, pad_edge=False)
    for column in found.columns:
        table.add_column(Text(column))
    for row in found.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
