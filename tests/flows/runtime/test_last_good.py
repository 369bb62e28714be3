"""What is kept of the last complete run, and the way back to it."""

import subprocess
from pathlib import Path

import pytest

from flows.runtime import last_good
from flows.runtime.last_good import EARLIER, FOLDER


@pytest.fixture(autouse=True)
def project(workspace: Path) -> None:
    Path("reports").mkdir()
    leave("first")


def leave(what: str) -> None:
    """Write what a run leaves."""
    for name in ("params.yaml", "dvc.lock", "reports/metrics.json"):
        Path(name).write_text(what)


def left() -> list[str]:
    return [Path(name).read_text() for name in ("params.yaml", "dvc.lock", "reports/metrics.json")]


def test_the_way_back_brings_the_last_complete_run_back() -> None:
    last_good.keep()
    leave("what failed")
    log, back = last_good.way_back("train").split("\n")
    assert log == "log: .cache/logs/train.log"
    sentence, _, commands = back.partition(": ")
    copying, _, checkout = commands.rpartition(" && ")
    assert (sentence, checkout.endswith("dvc checkout --force dvc.yaml")) == ("back to the last complete run", True)
    subprocess.run(copying, shell=True, check=True)
    assert left() == ["first"] * 3


def test_the_figures_are_kept_but_the_way_back_writes_over_nothing_that_dvc_may_have_linked(tmp_path: Path) -> None:
    figures, cached = Path("reports/evaluation.json"), tmp_path / "cached"
    figures.write_text("first")
    last_good.keep()
    figures.unlink()
    cached.write_text("what failed")
    figures.hardlink_to(cached)
    commands = last_good.way_back("export").partition("complete run: ")[2]
    subprocess.run(commands.rpartition(" && ")[0], shell=True, check=True)
    assert (FOLDER / figures).read_text() == "first"
    assert cached.read_text() == "what failed"


def test_before_the_first_complete_run_the_way_back_is_the_last_commit() -> None:
    assert last_good.way_back("train") == "log: .cache/logs/train.log", "there is no commit without git"
    Path(".git").mkdir()
    back = last_good.way_back("train").split("\n")[1]
    assert back == "back to the last commit: git restore params.yaml dvc.lock reports"


def test_the_run_before_is_one_with_another_lock() -> None:
    assert last_good.before() is None
    last_good.keep()
    assert last_good.before() is None, "what is kept is what is there"
    leave("second")
    assert last_good.before() == FOLDER
    last_good.keep()
    assert last_good.before() == EARLIER
    assert (EARLIER / "reports/metrics.json").read_text() == "first"


def test_a_run_that_changed_nothing_leaves_the_run_before_as_it_was() -> None:
    last_good.keep()
    leave("second")
    last_good.keep()
    last_good.keep()
    assert (EARLIER / "params.yaml").read_text() == "first"
    leave("third")
    last_good.keep()
    assert (EARLIER / "params.yaml").read_text() == "second"


def test_what_a_killed_run_had_begun_to_keep_is_no_hindrance() -> None:
    partial = FOLDER.with_name(f".partial-{FOLDER.name}")
    partial.mkdir(parents=True)
    (partial / "old").touch()
    last_good.keep()
    assert sorted(path.name for path in FOLDER.iterdir()) == ["dvc.lock", "params.yaml", "reports"]
