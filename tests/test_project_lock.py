"""The files that keep runs apart, and what a killed one leaves of them."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from ruamel.yaml import YAML

from flows import dvc_files, leftover, project_lock
from flows.project_lock import ProjectLocked, hold
from tests.conftest import ROOT

HOLDER = """
import sys, time
from flows.project_lock import hold
with hold():
    print("held", flush=True)
    time.sleep(float(sys.argv[1]))
"""


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path) -> None:
    pass


def other_process(seconds: float) -> subprocess.Popen[str]:
    """Hold the lock in another process for so long."""
    process = subprocess.Popen(
        (sys.executable, "-c", HOLDER, str(seconds)),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_holds_it() -> None:
    with other_process(60) as other:
        with pytest.raises(ProjectLocked, match=f"^the run with pid {other.pid} on .* since 20.* is at work"), hold():
            pass
        other.kill()


def test_it_ends_with_its_process() -> None:
    with other_process(60) as other:
        other.kill()
    with hold():
        assert json.loads(project_lock.PATH.read_text())["pid"] == os.getpid()
    assert project_lock.PATH.read_text() == ""


def test_a_second_process_waits(capsys: pytest.CaptureFixture[str]) -> None:
    with other_process(1.5) as other, hold(wait_s=30):
        pass
    assert capsys.readouterr().out.startswith(f"Waiting for the run with pid {other.pid} on ")


def test_it_waits_no_longer_than_it_was_told() -> None:
    with other_process(60) as other:
        began = time.monotonic()
        with pytest.raises(ProjectLocked), hold(wait_s=1):
            pass
        assert 1 <= time.monotonic() - began < 3
        other.kill()


def test_the_process_that_holds_it_may_take_it_again() -> None:
    with hold():
        with hold():
            pass
        assert json.loads(project_lock.PATH.read_text())["pid"] == os.getpid()


def test_files_that_dvc_left_cut_off_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvc_files, "SETTLED_S", 0.2)
    Path(".dvc/tmp").mkdir(parents=True)
    for text in ("", "schema: '2.0'\nstages:\n  train:\n    cmd: \"py"):
        Path("dvc.lock").write_text(text)
        Path(".dvc/tmp/rwlock").write_text('{"write": {"da')
        assert dvc_files.remove_damaged() == [dvc_files.LOCK, dvc_files.RWLOCK]
        assert not Path("dvc.lock").exists()
        assert not Path(".dvc/tmp/rwlock").exists()


@pytest.mark.parametrize("first", range(7))
def test_dvc_takes_what_is_left_of_a_lock_that_was_cut_off_anywhere(first: int) -> None:
    text = (ROOT / "dvc.lock").read_text()
    kept = 0
    for end in [*range(first * 13 + 1, len(text), 91), *(m.end() for m in re.finditer("\n", text))][first::7]:
        if dvc_files._is_lock(text[:end]):
            kept += 1
            COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(text[:end]))
    assert kept, "what DVC can use is used"


def test_a_merge_that_is_not_finished_is_left_to_the_user() -> None:
    Path("dvc.lock").write_text("<<<<<<< HEAD\nschema: '2.0'\n=======\n")
    assert dvc_files.remove_damaged() == []


def test_files_that_are_whole_stay() -> None:
    Path(".dvc/tmp").mkdir(parents=True)
    Path("dvc.lock").write_text((ROOT / "dvc.lock").read_text())
    Path(".dvc/tmp/rwlock").write_text("{}")
    assert dvc_files.remove_damaged() == []
    assert Path("dvc.lock").exists()


def test_a_file_that_dvc_is_about_to_finish_stays() -> None:
    Path("dvc.lock").write_text("")
    script = "import time; time.sleep(0.7); open('dvc.lock', 'w').write('schema: 2.0\\nstages: {}\\n')"
    with subprocess.Popen((sys.executable, "-c", script)):
        assert dvc_files.remove_damaged() == []


@pytest.mark.parametrize("same", [True, False], ids=["the one that was started", "another with its pid"])
def test_a_server_that_was_left_is_ended_and_no_other(same: bool) -> None:
    with subprocess.Popen(("sleep", "60")) as process:
        leftover.record(process, leftover.TEMPORARY)
        if not same:
            noted = json.loads(leftover.TEMPORARY.read_text())
            leftover.TEMPORARY.write_text(json.dumps(noted | {"started": noted["started"] - 9}))
        leftover.end(leftover.TEMPORARY)
        assert (process.poll() is not None) is same
        process.kill()


def test_no_server_was_left() -> None:
    leftover.end(leftover.TEMPORARY)
