"""`python -m actor_load.report report.json`: page, picture and JUnit again, from the JSON of a run."""

import argparse
import sys
from pathlib import Path

from pydantic import ValidationError

from actor_load.errors import LoadError
from actor_load.record import Record
from actor_load.report import terminal, write


def main(arguments: list[str] | None = None) -> int:
    """Writes the files, and shows the summary; 0, or 2 where there is no record to read or no folder to write to."""
    parser = argparse.ArgumentParser(prog="python -m actor_load.report", description=__doc__)
    parser.add_argument("record", type=Path, metavar="report.json", help="what a run with --report has left")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where the files go; without, beside the JSON")
    options = parser.parse_args(arguments)
    try:
        record = read(options.record)
        terminal.show(record, terminal.console())
        for path in write(record, options.to or options.record.parent):
            print(path)
    except LoadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def read(path: Path) -> Record:
    """The record in a file.

    Raises:
        LoadError: there is none; one line says why.
    """
    try:
        return Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise LoadError(f"{path}: cannot be read ({error.strerror}): name the report.json of a run") from error
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(map(str, found["loc"]))
        raise LoadError(
            f"{path} is no record of a run ({f'{where}: ' if where else ''}{found['msg']}): name the report.json of one"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
