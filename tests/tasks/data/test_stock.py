"""Stock of your own images: what is refused, whether folders or a CSV file say what there is."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support.inbox import INBOX, put, refusal, taken, write_csv


@pytest.fixture(autouse=True)
def inbox(workspace: Path) -> None:
    INBOX.mkdir(parents=True)


def test_an_empty_or_missing_folder_is_refused() -> None:
    assert "data/inbox holds no images: put files of .png, .jpg, .jpeg, .webp, .bmp there" in refusal()
    INBOX.rmdir()
    assert "download.path = 'data/inbox' is no folder" in refusal()
    assert "dataset folder lie, data/inbox for example" in refusal()


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"a\nb.png", b"a\rb.png"])
def test_names_that_cannot_be_written_down_are_refused(name: bytes) -> None:
    put("cat/1\u202fPM.png")
    taken()
    shutil.rmtree("data/raw")
    Path(os.fsdecode(os.fsencode(INBOX / "cat") + b"/" + name)).write_text("x")
    assert "data/inbox: names of files that cannot be written down; rename them:\n  'cat/" in refusal()


def test_a_class_whose_name_cannot_be_written_down_is_refused() -> None:
    put("a.png")
    write_csv('image,label\na.png,"two\nlines"\n')
    assert r"data/inbox: names of classes that cannot be written down; rename them: 'two\nlines'" in refusal("csv")
