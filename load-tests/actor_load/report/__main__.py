"""`python -m actor_load.report report.json`: page, picture and JUnit again, from the JSON of a run; with `--against`,
what got worse since an older one."""

import argparse
import re
import sys
from pathlib import Path

from pydantic import ValidationError

from actor_load.errors import LoadError
from actor_load.record import Record
from actor_load.report import terminal, write
from actor_load.report.compare import compare


def main(arguments: list[str] | None = None) -> int:
    """Writes the files, and shows the summary; 0, or 2 where there is no record to read or no folder to write to.

    With ``--against`` it shows the comparison; 1 where something got worse. Then the files, with the comparison as a
    section, are written only ``--to`` a folder.
    """
    parser = argparse.ArgumentParser(prog="python -m actor_load.report", description=__doc__)
    parser.add_argument("record", type=Path, metavar="report.json", help="what a run with --report has left")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where the files go; without, beside the JSON")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="OLD.json",
        help="compare with this older run; exit code 1: the new one is worse",
    )
    parser.add_argument(
        "--tolerance", type=_share, default=0.1, metavar="10%%", help="worse by no more than this is not worse"
    )
    options = parser.parse_args(arguments)
    try:
        record = read(options.record)
        worse = False
        if options.against:
            section = compare(read(options.against), record, options.tolerance)
            record.sections.append(section)
            worse = not all(check.passed for check in section.checks)
            terminal.show_section(section, terminal.console())
            for check in section.checks:
                print(check.detail)
        else:
            terminal.show(record, terminal.console())
        if options.to or not options.against:
            for path in write(record, options.to or options.record.parent):
                print(path)
    except LoadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(worse)


def _share(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is no share: 10% is one")
    return float(found[1]) / 100


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
        where, said = ".".join(map(str, found["loc"])), found["msg"].removeprefix("Value error, ")
        raise LoadError(
            f"{path} is no record of a run ({f'{where}: ' if where else ''}{said}): name the report.json of one"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
