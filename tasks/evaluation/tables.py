"""The tables in reports/, as CSV files that a spreadsheet opens without taking a name for a formula.

A cell that begins like a formula is written with an apostrophe before it, see
https://owasp.org/www-community/attacks/CSV_Injection; so is one that begins with an apostrophe, so that `read` gives
back what was written. A number, as a label of -1, is no formula. DVC's confusion matrix shows such a name with its
apostrophe.
"""

import csv
import re
from collections.abc import Iterable
from pathlib import Path

# The last four are the wide forms of the first: Excel takes them for the same.
FORMULA = re.compile(r"[=+\-@\t\r\n'\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def write(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        # All are quoted: older Pythons leave a carriage return in a cell bare, where a line would end.
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(header)
        writer.writerows([_protected(cell) for cell in row] for row in rows)


def read(path: Path) -> list[dict[str, str]]:
    """Read what `write` wrote, a dictionary a row, by the names in the header."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: cell.removeprefix("'") for name, cell in row.items()} for row in csv.DictReader(file)]


def _protected(cell: str) -> str:
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell
