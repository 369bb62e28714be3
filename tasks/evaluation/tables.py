"""The tables in reports/, as CSV files that a spreadsheet opens without taking a name for a formula: serving/cells.py.

DVC's confusion matrix shows such a name with its apostrophe.
"""

import csv
from collections.abc import Iterable
from pathlib import Path

from serving.cells import protected


def write(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        # All are quoted: older Pythons leave a carriage return in a cell bare, where a line would end.
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(header)
        writer.writerows([protected(cell) for cell in row] for row in rows)


def read(path: Path) -> list[dict[str, str]]:
    """Read what `write` wrote, a dictionary a row, by the names in the header."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: cell.removeprefix("'") for name, cell in row.items()} for row in csv.DictReader(file)]
