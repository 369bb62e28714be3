"""What a run has found out so far, in an SQLite file beside its result, so that it goes on after a kill.

The list of images is in it, too: SQLite sorts it on the disk. The file is locked as long as it is open.
"""

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from serving.folder.rows import Row
from serving.folder.walk import Found

VERSION = 1  # of the tables
COMMIT_EVERY_S = 1.0  # so much a kill costs
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS about (contents TEXT);
CREATE TABLE IF NOT EXISTS images (
    path BLOB PRIMARY KEY, stamp TEXT, listed INTEGER, done INTEGER, {", ".join(Row._fields[1:])}
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
# A row that was made of what is still there is kept. An error that comes with the list is of a folder.
LIST = """
INSERT INTO images (path, stamp, error, done, listed) VALUES (?1, ?2, ?3, ?3 IS NOT NULL, 1)
ON CONFLICT (path) DO UPDATE SET
    done = iif(stamp = excluded.stamp, done, excluded.done),
    error = iif(stamp = excluded.stamp, error, excluded.error),
    stamp = excluded.stamp,
    listed = 1
"""
PENDING = "SELECT path FROM images WHERE NOT done AND path > ? ORDER BY path LIMIT ?"
ROWS = f"SELECT {', '.join(Row._fields)} FROM images ORDER BY path"
ADD = f"UPDATE images SET done = 1, {', '.join(f'{name} = ?' for name in Row._fields[1:])} WHERE path = ?"


class Busy(Exception):
    """Another process has the journal."""


class OtherRun(Exception):
    """The journal is of a run that differs in something."""


class Journal:
    """The images of a folder, each with its row once it has one.

    Every method raises sqlite3.Error where the disk is full or the file damaged; what was committed stays.
    """

    def __init__(self, path: Path, about: dict[str, str]) -> None:
        """Open the journal at `path`, or begin it.

        Args:
            about: the run; to go on, all of it has to be as it was.

        Raises:
            Busy, OtherRun: see there.
        """
        self.path = path
        self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
        self._committed = time.monotonic()
        try:
            self._begin(about)
        except BaseException as error:
            self._database.close()
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise Busy from None
            raise

    def _begin(self, about: dict[str, str]) -> None:
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("BEGIN EXCLUSIVE")
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise OtherRun("another version of this project")
        for statement in SCHEMA.split(";\n"):
            self._database.execute(statement)
        for (found,) in self._database.execute("SELECT contents FROM about"):
            for name, value in json.loads(found).items():
                if about[name] != value:
                    raise OtherRun(f"{name} {value}, not {about[name]}")
            break
        else:
            self._database.execute("INSERT INTO about VALUES (?)", (json.dumps(about),))
        self._database.execute("COMMIT")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Keep the rows that were added, unless it is the journal itself that fails; of nothing nothing is kept."""
        try:
            if not (kind and issubclass(kind, sqlite3.Error)):
                if self._database.in_transaction:
                    self._database.execute("COMMIT")
                if not self._database.execute("SELECT EXISTS (SELECT 1 FROM images)").fetchone()[0]:
                    self.remove()
        finally:
            self._database.close()

    def take(self, found: Iterable[Found]) -> None:
        """Take the files that are there now for the list; all or, where this is ended or `found` raises, nothing."""
        self._database.execute("BEGIN")
        try:
            self._database.execute("UPDATE images SET listed = 0")
            self._database.executemany(LIST, ((os.fsencode(one.path), one.stamp, one.error) for one in found))
            self._database.execute("DELETE FROM images WHERE NOT listed")
        except BaseException:
            if self._database.in_transaction:  # after some errors SQLite has rolled back by itself
                self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def counts(self) -> tuple[int, int, int]:
        """Return how many rows there will be, how many there are, and how many of these have an error."""
        total, done, bad = self._database.execute(
            "SELECT count(*), total(done), count(iif(done, error, NULL)) FROM images"
        ).fetchone()
        return total, int(done), bad

    def pending(self, size: int) -> Iterator[list[str]]:
        """Yield the paths that have no row yet, `size` at a time, in the order of their bytes."""
        last = b""
        while found := self._database.execute(PENDING, (last, size)).fetchall():
            (last,) = found[-1]
            yield [os.fsdecode(path) for (path,) in found]

    def add(self, rows: list[Row]) -> None:
        """Add the rows of a batch: after a kill all of them are there, or none."""
        if not self._database.in_transaction:
            self._database.execute("BEGIN")
        self._database.executemany(ADD, ((*row[1:], os.fsencode(row.path)) for row in rows))
        if time.monotonic() - self._committed > COMMIT_EVERY_S:
            self._database.execute("COMMIT")
            self._committed = time.monotonic()

    def rows(self) -> Iterator[Row]:
        """Yield all rows, in the order of the bytes of their paths."""
        for path, *cells in self._database.execute(ROWS):
            yield Row(os.fsdecode(path), *cells)

    def remove(self) -> None:
        """Remove the file; it remains locked until this is closed."""
        self.path.unlink(missing_ok=True)
        self.path.with_name(f"{self.path.name}-journal").unlink(missing_ok=True)
