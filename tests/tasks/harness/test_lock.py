"""A lock on a file: one process has it, its end gives it back."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tasks.harness.lock import Holder, Locked, hold
from tests.support.params import ROOT


def test_a_second_one_is_told_who_has_it(tmp_path: Path) -> None:
    with hold(tmp_path / "locks/a.lock", 0), pytest.raises(Locked) as locked, hold(tmp_path / "locks/a.lock", 0):
        pass
    assert set(locked.value.holder) == {"pid", "host", "since"}
    assert locked.value.holder["pid"] == os.getpid()


def test_a_lock_can_be_had_again(tmp_path: Path) -> None:
    for _ in range(2):
        with hold(tmp_path / "a.lock", 0):
            assert (tmp_path / "a.lock").read_text()
    assert not (tmp_path / "a.lock").read_text()


def test_who_waits_is_called_once_and_gets_it_when_the_other_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Holder] = []
    waits: list[float] = []
    first = ExitStack()
    first.enter_context(hold(tmp_path / "a.lock", 0))

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            first.close()

    monkeypatch.setattr("tasks.harness.lock.time.sleep", sleep)
    with hold(tmp_path / "a.lock", 60, called.append):
        assert len(waits) == 3
    assert [holder["pid"] for holder in called] == [os.getpid()]


def test_it_ends_with_the_process_that_has_it(tmp_path: Path) -> None:
    script = "import sys, time\nfrom pathlib import Path\nfrom tasks.harness.lock import hold\n"
    script += "with hold(Path(sys.argv[1]), 0):\n    print('held', flush=True)\n    time.sleep(60)"
    words = (sys.executable, "-c", script, str(tmp_path / "a.lock"))
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(Locked) as locked, hold(tmp_path / "a.lock", 0):
            pass
        assert locked.value.holder["pid"] == other.pid
        other.kill()
        other.wait()
        with hold(tmp_path / "a.lock", 0):
            pass


def test_who_has_not_yet_said_who_it_is_has_it_all_the_same(tmp_path: Path) -> None:
    with hold(tmp_path / "a.lock", 0):
        (tmp_path / "a.lock").write_text("{")
        with pytest.raises(Locked) as locked, hold(tmp_path / "a.lock", 0):
            pass
    assert locked.value.holder == {}
