"""Write rows as a table, labels.parquet or labels.csv, in a few megabytes however many they are.

In CSV a text that a spreadsheet would take for a formula has an apostrophe before it, as in reports/predictions.csv.
"""

import csv
import io
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
from arro3.io import write_parquet

from serving.cells import protected
from serving.folder.rows import Row

if TYPE_CHECKING:
    from typing_extensions import Buffer

SUFFIXES = (".parquet", ".csv")
AT_A_TIME = 10_000  # rows
ROW_GROUP = 100_000  # rows
TYPES = {name: DataType.float32() if name.startswith("probability") else DataType.utf8() for name in Row._fields}


def write(path: Path, suffix: str, rows: Iterator[Row], about: dict[str, str]) -> None:
    """Write a table through to the disk.

    Args:
        suffix: .parquet or .csv
        about: for the metadata of a Parquet file.

    Raises:
        OSError: the disk is full.
    """
    printable = (row._replace(path=os.fsencode(row.path).decode("utf-8", "backslashreplace")) for row in rows)
    path.unlink(missing_ok=True)  # of a run that was killed; or a link, which is not to be followed
    with path.open("xb") as file:
        if suffix == ".csv":
            _write_csv(file, printable)
        else:
            _write_parquet(file, printable, about)
        file.flush()
        os.fsync(file.fileno())


def _write_csv(file: BinaryIO, rows: Iterator[Row]) -> None:
    lines = _Lines(file)
    # All are quoted: older Pythons leave a carriage return in a cell bare, where a line would end.
    writer = csv.writer(lines, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(Row._fields)
    writer.writerows(map(_cell, row) for row in rows)


class _Lines:
    """Text for a file of bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def write(self, text: str) -> int:
        return self.file.write(text.encode())


def _cell(value: str | float | None) -> str:
    if isinstance(value, float):
        return str(np.float32(value))  # the fewest digits that say it
    return protected(value or "")


def _write_parquet(file: BinaryIO, rows: Iterator[Row], about: dict[str, str]) -> None:
    schema = Schema([Field(name, kind, nullable=name != "path") for name, kind in TYPES.items()])
    failures: list[BaseException] = []
    reader = RecordBatchReader.from_batches(schema, _batches(rows, schema, failures))
    write_parquet(
        reader,
        cast("BinaryIO", _Sink(file, failures)),
        compression="zstd(3)",
        max_row_group_size=ROW_GROUP,
        column_dictionary_enabled={"path": False},  # of which no two are the same
        key_value_metadata=about,
    )
    if failures:
        raise failures[0]


def _batches(rows: Iterator[Row], schema: Schema, failures: list[BaseException]) -> Iterator[RecordBatch]:
    """Yield rows as Arrow has them; an exception is kept for who asked, and ends them."""
    try:
        while some := list(islice(rows, AT_A_TIME)):
            columns = zip(TYPES.values(), zip(*some, strict=True), strict=True)
            yield RecordBatch.from_arrays([Array(cells, kind) for kind, cells in columns], schema=schema)
    except BaseException as error:
        failures.append(error)


class _Sink(io.BufferedIOBase):
    """A file that keeps an exception for who asked: of a full disk arro3 would panic, and print that it does."""

    def __init__(self, file: BinaryIO, failures: list[BaseException]) -> None:
        self.file, self.failures = file, failures

    def write(self, data: "Buffer") -> int:
        try:
            return self.file.write(data)
        except BaseException as error:
            self.failures.append(error)
        return len(memoryview(data))
