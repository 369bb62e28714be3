"""Where no run can, or may, begin."""

import os
from pathlib import Path

import pytest

from flows.runtime import checkout
from tasks.harness.errors import StageError


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path) -> None:
    Path(".git").mkdir()


@pytest.mark.parametrize("name", [".", "models", "dvc.lock"])
def test_a_folder_that_cannot_be_written_to(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("models").mkdir()
    Path("dvc.lock").touch()
    checkout.check()
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == Path(name) and mode == os.W_OK))  # for root, too
    with pytest.raises(StageError, match=f"^{Path(name).absolute()} cannot be written to: a run needs the project in"):
        checkout.check()


def test_without_git_it_is_said_what_to_type() -> None:
    Path(".git").rmdir()
    with pytest.raises(
        StageError, match=r"no git repository.*: git init && .* or go without: \S+/dvc config core.no_scm"
    ):
        checkout.check()
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    checkout.check()


def test_a_folder_that_is_still_to_be_made_needs_one_above_it_that_can_be_written_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("data").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == Path("data") and mode == os.W_OK))
    with pytest.raises(StageError, match=f"^{Path('data').absolute()} cannot be written to"):
        checkout.check()
