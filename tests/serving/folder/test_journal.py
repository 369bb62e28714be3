"""What a run has found out outlives it, and is of that run alone."""

import os
import sqlite3
import time
from pathlib import Path

import pytest

from serving.folder.journal import Busy, Journal, OtherRun
from serving.folder.rows import Row
from serving.folder.walk import Found

ABOUT = {"model": "abc", "folder": "/photos"}
FILES = [Found("b.png", "1"), Found("a/c.png", "1"), Found("a b.png", "1")]
SORTED = ["a b.png", "a/c.png", "b.png"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".labels.csv.unfinished"


def paths(opened: Journal) -> list[str]:
    return [path for batch in opened.pending(2) for path in batch]


def test_images_are_in_the_order_of_the_bytes_of_their_paths_and_rows_too(path: Path) -> None:
    odd = Found(os.fsdecode(b"\xff.png"), "1")
    with Journal(path, ABOUT) as opened:
        opened.take([odd, *FILES])
        batches = list(opened.pending(2))
        assert batches == [SORTED[:2], [SORTED[2], odd.path]]
        for batch in batches:
            opened.add([Row(name, "dog", 0.5, error=None) for name in batch])
        assert [row.path for row in opened.rows()] == [*SORTED, odd.path]
        assert opened.counts() == (4, 4, 0)


def test_rows_are_kept_and_those_of_files_that_changed_or_went_are_not(path: Path) -> None:
    with Journal(path, ABOUT) as opened:
        opened.take(FILES)
        opened.add([Row(name, error="bad") for name in SORTED])
    with Journal(path, ABOUT) as opened:
        opened.take([Found("b.png", "2"), Found("a/c.png", "1"), Found("new.png", "1")])
        assert opened.counts() == (3, 1, 1)
        assert paths(opened) == ["b.png", "new.png"]
        opened.add([Row("b.png", "dog", 0.5), Row("new.png", "cat", 0.5)])
        assert list(opened.rows()) == [
            Row("a/c.png", error="bad"),
            Row("b.png", "dog", 0.5),
            Row("new.png", "cat", 0.5),
        ]


def test_a_folder_that_cannot_be_looked_into_is_a_row_until_it_can_be(path: Path) -> None:
    with Journal(path, ABOUT) as opened:
        opened.take([Found("shut", "folder", "Permission denied"), FILES[0]])
        assert opened.counts() == (2, 1, 1)
        assert paths(opened) == ["b.png"]
        opened.take([Found("shut", "folder", "Permission denied"), FILES[0]])
        assert opened.counts() == (2, 1, 1)
        opened.take(FILES[:1])
        assert opened.counts() == (1, 0, 0)


def test_a_list_that_is_not_taken_whole_changes_nothing(path: Path) -> None:
    def broken() -> object:
        yield Found("x.png", "1")
        raise KeyboardInterrupt

    with Journal(path, ABOUT) as opened:
        opened.take(FILES)
        opened.add([Row(SORTED[0], "dog", 0.5)])
    with pytest.raises(KeyboardInterrupt), Journal(path, ABOUT) as opened:
        opened.take(broken())  # type: ignore[arg-type]
    with Journal(path, ABOUT) as opened:
        assert opened.counts() == (3, 1, 0)


@pytest.mark.parametrize(
    ("changed", "said"), [({"model": "abd"}, "model abc, not abd"), ({"folder": "/p"}, "folder /photos, not /p")]
)
def test_another_run_does_not_go_on_with_it(path: Path, changed: dict[str, str], said: str) -> None:
    with Journal(path, ABOUT) as opened:
        opened.take(FILES)
    with pytest.raises(OtherRun, match=f"^{said}$"):
        Journal(path, ABOUT | changed)
    with Journal(path, ABOUT) as opened:
        assert opened.counts()[0] == 3


def test_a_journal_of_another_version_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(OtherRun, match="another version of this project"):
        Journal(path, ABOUT)


def test_two_at_once_are_refused(path: Path) -> None:
    with Journal(path, ABOUT), pytest.raises(Busy):
        Journal(path, ABOUT)


def test_what_is_no_journal_is_an_error_of_sqlite_and_is_left_as_it_is(path: Path) -> None:
    path.write_text("precious" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        Journal(path, ABOUT)
    assert path.read_text() == "precious" * 100


def test_of_a_folder_without_images_none_is_left(path: Path) -> None:
    with Journal(path, ABOUT) as opened:
        opened.take([])
    assert not path.exists()
    with Journal(path, ABOUT) as opened:
        opened.take(FILES)
        opened.remove()
    assert list(path.parent.iterdir()) == []


def test_rows_are_committed_every_second(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Journal(path, ABOUT) as opened:
        opened.take(FILES)
        for number, name in enumerate(SORTED):
            now[0] += 0.6
            opened.add([Row(name, "dog", 0.5)])
            assert opened._database.in_transaction == (number != 1)
