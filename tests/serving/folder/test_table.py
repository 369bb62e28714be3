"""The table as others read it."""

import csv
import errno
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from arro3.core import Table
from arro3.io import read_parquet

from serving.folder import table
from serving.folder.rows import Row
from tasks.evaluation import tables

ROWS = [
    Row("a/1.png", "dog", 0.75, "cat", 0.25, None, None, None),
    Row("=1+1.png", "-1", 0.1, "@x", 1e-12, "'quoted", 0.0, None),
    Row('line\r\nbreak, "and" more.png', error="+ broken"),
    Row(os.fsdecode(b"\xff.png"), "h\u00e4ll", 1.0),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table"


def written(path: Path, suffix: str, rows: list[Row]) -> Path:
    table.write(path, suffix, iter(rows), {"model_sha256": "abc"})
    return path


def columns(path: Path) -> dict[str, list[object]]:
    found = Table.from_arrow(read_parquet(path))
    return {name: list(found[name].to_pylist()) for name in found.column_names}


def test_parquet_holds_texts_float32_and_nulls(path: Path) -> None:
    found = columns(written(path, ".parquet", ROWS))
    assert tuple(found) == Row._fields
    assert found["path"] == ["a/1.png", "=1+1.png", ROWS[2].path, "\\xff.png"]
    assert found["label"] == ["dog", "-1", None, "h\u00e4ll"]
    assert found["probability"] == [0.75, pytest.approx(0.1), None, 1.0]
    assert found["error"] == [None, None, "+ broken", None]
    assert b"model_sha256" in path.read_bytes()


def test_csv_says_the_same_and_gives_a_spreadsheet_no_formula(path: Path) -> None:
    lines = list(csv.reader(written(path, ".csv", ROWS).read_text(encoding="utf-8").splitlines(keepends=True)))
    assert lines[0] == list(Row._fields)
    assert lines[1] == ["a/1.png", "dog", "0.75", "cat", "0.25", "", "", ""]
    assert lines[2] == ["'=1+1.png", "-1", "0.1", "'@x", "1e-12", "''quoted", "0.0", ""]
    assert [line["path"] for line in tables.read(path)[2:]] == [ROWS[2].path, "\\xff.png"]
    assert lines[3][-1] == "'+ broken"


def test_cells_are_those_of_the_other_tables(path: Path, tmp_path: Path) -> None:
    texts = ["=a", "+a", "-a", "@a", "\ta", "\ra", "\na", "'a", "\uff1da", "-1", "+1.5", "-1a", "a=", "1"]
    tables.write(tmp_path / "theirs.csv", Row._fields, [(text, *[""] * (len(Row._fields) - 1)) for text in texts])
    written(path, ".csv", [Row(text) for text in texts])
    assert path.read_bytes() == (tmp_path / "theirs.csv").read_bytes()


def test_more_rows_than_are_held_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "AT_A_TIME", 3)
    monkeypatch.setattr(table, "ROW_GROUP", 5)
    names = [f"{number:03}.png" for number in range(20)]
    assert columns(written(path, ".parquet", [Row(name, "dog", 0.5) for name in names]))["path"] == names


def test_what_lies_there_is_replaced_and_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    path.symlink_to("precious")
    written(path, ".csv", ROWS)
    assert (tmp_path / "precious").read_text() == "precious"
    before = path.read_bytes()
    assert written(path, ".csv", ROWS).read_bytes() == before


@pytest.mark.parametrize("suffix", table.SUFFIXES)
def test_a_full_disk_is_an_error_and_nothing_is_printed(
    suffix: str, path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = (Row(sha256(bytes([number % 256, number // 256])).hexdigest()) for number in range(20_000))
    with Path("/dev/full").open("wb") as device:
        monkeypatch.setattr(Path, "open", lambda *_: device)
        with pytest.raises(OSError, match="No space left") as full:
            table.write(path, suffix, rows, {})
    assert full.value.errno == errno.ENOSPC
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", table.SUFFIXES)
def test_an_exception_of_the_rows_is_raised_as_it_is(suffix: str, path: Path) -> None:
    def stopped() -> Iterator[Row]:
        yield ROWS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table.write(path, suffix, stopped(), {})
