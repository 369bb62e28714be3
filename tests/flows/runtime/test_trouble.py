"""What is said of an error of the system."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.runtime import trouble


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("epochs = 0: at least 1"), "epochs = 0: at least 1"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "models/a"), "Read-only file system: models/a"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"),
        (OSError("the pipe is closed"), "the pipe is closed"),
    ],
)
def test_an_error_is_said_with_its_file(error: Exception, said: str) -> None:
    assert trouble.said(error) == said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_of_the_disks_that_are_written_to_the_full_one_is_named(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REGISTRY", "elsewhere/registry")
    Path("elsewhere").mkdir()
    small = tmp_path / "elsewhere"
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: SimpleNamespace(free=1_400_000 if path == small else 9_000_000_000)
    )
    said = trouble.said(OSError(number, os.strerror(number)))
    assert said == f"the disk is full (1 MB free in {small}/registry): make room"
