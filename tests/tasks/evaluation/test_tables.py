"""Tables that a spreadsheet opens without running what a name says, and that are read back as they were."""

import csv
from pathlib import Path

import pytest

from tasks.evaluation import tables

FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
    '=HYPERLINK("x","y")',
    "-cat",
]
PLAIN = ["cat", "a=b", "1", "-1", "+1", "-0.000000", "", " =1", "T-shirt/top", 'a "quoted", name']


@pytest.mark.parametrize(("names", "apostrophe"), [(FORMULAS, "'"), (PLAIN, ""), (["'cat", "''", "'=1"], "'")])
def test_what_begins_like_a_formula_has_an_apostrophe_and_is_read_back_without(
    tmp_path: Path, names: list[str], apostrophe: str
) -> None:
    tables.write(tmp_path / "table.csv", ("label", "loss"), ((name, "0.5") for name in names))
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == [apostrophe + name for name in names]
    assert tables.read(tmp_path / "table.csv") == [{"label": name, "loss": "0.5"} for name in names]
