"""The end of a run in the terminal: a screen of what the page has in full."""

from rich.columns import Columns
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from actor_load.record import Figure, Record, Section
from actor_load.record import Table as Found
from actor_load.report import overview


def show(record: Record, console: Console) -> None:
    """Prints verdict, headline, what each section found, and a line for each check that failed."""
    console.print()
    console.print(Text(record.title, "bold"))
    console.print(_figures(overview.headline(record)))
    for warning in overview.warnings(record):
        console.print(Text(f"Mind: {warning}", "yellow"))
    for section in record.sections:
        console.print(_section(section))
    console.print()
    for failed in overview.failed_checks(record):
        console.print(Text.assemble(("FAILED ", "bold red"), failed), soft_wrap=True)
    console.print(Text(overview.verdict(record), "bold green" if record.passed else "bold red"))


def _section(section: Section) -> Group:
    parts: list[Text | Columns | Table] = [Text(), Text(section.title, "bold")]
    if section.figures:
        parts.append(_figures(section.figures))
    parts.extend(_table(table) for table in section.tables)
    return Group(*parts)


def _figures(figures: list[Figure]) -> Columns:
    """Side by side, as many as the terminal is wide."""
    return Columns(
        [
            Text.assemble((figure.name, "dim"), " ", (figure.value, "bold"), (_note(figure), "dim"))
            for figure in figures
        ],
        padding=(0, 3),
    )


def _note(figure: Figure) -> str:
    return f" ({figure.note})" if figure.note else ""


def _table(found: Found) -> Table:
    table = Table(title=found.title, title_justify="left", title_style="dim", box=None, pad_edge=False)
    for column in found.columns:
        table.add_column(Text(column))
    for row in found.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
