"""Where no run can, or may, begin."""

import os
from pathlib import Path

import pytest

from flows.runtime import checkout
from tasks.data import fetch
from tasks.data.datasets import DATASETS
from tasks.harness.errors import StageError
from tests.support.made import made


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path) -> None:
    Path(".git").mkdir()


@pytest.mark.parametrize("name", [".", "models", "dvc.lock"])
def test_a_folder_that_cannot_be_written_to(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("models").mkdir()
    Path("dvc.lock").touch()
    checkout.check()
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == name and mode == os.W_OK))  # for root, too
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


@pytest.mark.parametrize("folder", ["data/raw", "data/prepared"])
def test_files_that_no_run_has_made_are_not_to_be_removed(folder: str) -> None:
    place = Path(folder)
    (place / "cat").mkdir(parents=True)
    (place / ".DS_Store").touch()
    with pytest.raises(StageError, match=rf"^{folder} holds 'cat', which no run has made, and a run would remove"):
        checkout.check_outputs()
    (place / "cat").rmdir()
    checkout.check_outputs()


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "cifar100"])
def test_what_download_makes_is_known(name: str) -> None:
    archives = []
    for file, content in made(name).items():
        archives.append(Path(file))
        archives[-1].write_bytes(content)
    fetch.unpack(archives, Path("data/raw") / DATASETS[name].folder)
    checkout.check_outputs()


def test_what_the_stages_make_is_known(exported: Path) -> None:
    Path("data/raw/stock.json").touch()
    checkout.check_outputs()
    assert len(list(Path("data/prepared").iterdir())) == 7
