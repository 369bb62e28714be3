"""What every stage runs inside: all outputs or none, and errors in one sentence."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.harness.errors import StageError
from tasks.harness.stage import stage
from tests.support.params import ROOT, write_params


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path) -> None:
    pass


def test_outputs_appear_when_the_stage_has_succeeded() -> None:
    with stage("train", writes=["models/a.txt", "reports/b.json"]) as running:
        running.path("models/a.txt").write_text("a")
        running.path("reports/b.json").write_text("{}")
        assert not Path("models/a.txt").exists()
    assert Path("models/a.txt").read_text() == "a"
    assert Path("reports/b.json").read_text() == "{}"
    assert sorted(path.name for path in (*Path("models").iterdir(), *Path("reports").iterdir())) == ["a.txt", "b.json"]


def test_a_folder_replaces_one_that_is_there() -> None:
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/old").touch()
    with stage("download", writes=["data/raw"]) as running:
        running.path("data/raw").mkdir()
        (running.path("data/raw") / "new").touch()
    assert [path.name for path in Path("data/raw").iterdir()] == ["new"]
    assert [path.name for path in Path("data").iterdir()] == ["raw"]


def test_outputs_keep_the_file_name_while_they_are_written() -> None:
    with stage("train", writes=["models/model.pth"]) as running:
        assert running.path("models/model.pth").name == "model.pth"
        running.path("models/model.pth").touch()


@pytest.mark.parametrize("error", [StageError("epochs is wrong"), ZeroDivisionError("a defect")])
def test_a_failure_publishes_nothing_and_keeps_what_was_there(error: Exception) -> None:
    Path("models").mkdir()
    Path("models/a.txt").write_text("old")

    def main() -> None:
        with stage("train", writes=["models/a.txt"]) as running:
            running.path("models/a.txt").write_text("new")
            raise error

    with pytest.raises((SystemExit, ZeroDivisionError)):
        main()
    assert Path("models/a.txt").read_text() == "old"
    assert [path.name for path in Path("models").iterdir()] == ["a.txt"]


def test_a_failure_with_a_reason_is_one_sentence_and_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(SystemExit, match=r"^train: epochs is wrong$"), stage("train", writes=["a"]):
        raise StageError("epochs is wrong")
    with pytest.raises(ZeroDivisionError), stage("train", writes=["a"]):
        raise ZeroDivisionError


def test_what_a_killed_run_left_is_removed() -> None:
    leftover = Path("models/.partial-train/a.txt")
    leftover.parent.mkdir(parents=True)
    leftover.write_text("half")
    with stage("train", writes=["models/a.txt"]) as running:
        assert not leftover.exists()
        running.path("models/a.txt").write_text("whole")
    assert Path("models/a.txt").read_text() == "whole"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda: Path("data/b.npy").write_text("new"), "data/b.npy"),
        (lambda: Path("data/b.npy").unlink(), "data/b.npy"),
        (lambda: Path("data/c.npy").touch(), "data/c.npy"),
        (lambda: Path("model.json").touch(), "model.json"),
        (lambda: write_params(train={"epochs": 7}), "params.yaml: train"),
        (lambda: write_params(evaluate={"batch_size": 7}), "params.yaml: evaluate.batch_size"),
    ],
)
def test_an_input_that_changes_meanwhile_is_named_and_nothing_published(
    change: Callable[[], object], named: str
) -> None:
    Path("data").mkdir()
    for name in ("data/a.npy", "data/b.npy", "model.json"):
        Path(name).write_text("old")

    def main() -> None:
        params = ["train", "evaluate.batch_size"]
        with stage("train", reads=["data", "model.json"], params=params, writes=["a"]) as running:
            running.path("a").touch()
            change()

    with pytest.raises(SystemExit, match=f"^train: {re.escape(named)} changed while the stage ran"):
        main()
    assert not Path("a").exists()


def test_what_is_no_input_may_change() -> None:
    with stage("train", reads=[], params=["train"], writes=["a"]) as running:
        write_params(evaluate={"batch_size": 7})
        running.path("a").touch()
    assert Path("a").exists()


def in_small_disk(script: str, options: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a mount namespace of its own, its working directory `disk` a tmpfs mounted with `options`."""
    Path("disk").mkdir()
    unshare = ("unshare", "--mount", "--map-root-user", "sh", "-c")
    if not shutil.which("unshare") or subprocess.run((*unshare, "mount -t tmpfs x disk"), check=False).returncode:
        pytest.skip("needs Linux, and the right to make a mount namespace")
    commands = f'mount -t tmpfs -o {options} x disk && cd disk && "$0" -c "$1"'
    return subprocess.run(
        (*unshare, commands, sys.executable, script),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_input_that_changed_is_named_before_what_came_of_it() -> None:
    Path("data").mkdir()
    Path("data/a").write_text("1")

    def main() -> None:
        with stage("train", reads=["data/a"], writes=["models/a"]):
            Path("data/a").write_text("23")
            raise StageError("learning_rate is too high")

    with pytest.raises(SystemExit, match=r"^train: data/a changed while .* It had failed: learning_rate is too high$"):
        main()


# A process of the stage `train` that is at work until its standard input is closed.
AT_WORK = """
import sys
from tasks.harness.stage import stage
with stage("train", writes=["models/a"]) as running:
    running.path("models/a").write_text("theirs")
    print("at work", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    pipe, environment = subprocess.PIPE, os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen((sys.executable, "-c", AT_WORK), env=environment, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


def end(other: subprocess.Popen[bytes]) -> None:
    assert other.stdin is not None
    other.stdin.close()
    assert other.wait() == 0


def write_ours() -> None:
    with stage("train", writes=["models/a"]) as running:
        running.path("models/a").write_text("ours")


def test_a_second_process_of_a_stage_leaves_the_outputs_to_the_first(
    other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.harness.stage.ENDS_WITHIN_S", 0.2)
    with pytest.raises(SystemExit, match=rf"^train: it runs already, as process {other.pid}: wait until"):
        write_ours()
    end(other)
    assert Path("models/a").read_text() == "theirs"


def test_a_second_process_of_a_stage_waits_for_one_that_ends(other: subprocess.Popen[bytes]) -> None:
    ends = threading.Timer(0.3, end, (other,))
    ends.start()
    write_ours()
    ends.join()
    assert Path("models/a").read_text() == "ours"


def test_a_full_disk_is_said_to_be_full() -> None:
    script = """
from tasks.harness.stage import stage
with stage("transform", writes=["data/prepared"]) as running:
    running.path("data/prepared").mkdir()
    (running.path("data/prepared") / "images.npy").write_bytes(bytes(2_000_000))
"""
    answer = in_small_disk(script, "size=1m")
    assert answer.returncode == 1
    assert answer.stderr.startswith("transform: the disk is full (")
    assert "data/prepared not written" in answer.stderr


def test_a_read_only_disk_is_said_to_be_read_only() -> None:
    answer = in_small_disk(
        "from tasks.harness.stage import stage\nwith stage('train', writes=['models/a']): pass", "ro"
    )
    assert answer.returncode == 1
    assert answer.stderr.startswith("train: Read-only file system: ")
    assert "models/a not written" in answer.stderr
