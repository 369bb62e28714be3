"""The lock that keeps runs apart: who holds it is named, waited for, and has it no longer than it lives."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.runtime import project_lock
from flows.runtime.project_lock import ProjectLocked, hold
from tests.support.params import ROOT

HOLDER = """
import sys, time
from flows.runtime.project_lock import hold
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
    with other_process(0.5) as other, hold(wait_s=30):
        pass
    assert capsys.readouterr().out.startswith(f"Waiting for the run with pid {other.pid} on ")


def test_it_waits_no_longer_than_it_was_told() -> None:
    with other_process(60) as other:
        began = time.monotonic()
        with pytest.raises(ProjectLocked), hold(wait_s=0.3):
            pass
        assert 0.3 <= time.monotonic() - began < 3
        other.kill()


def test_the_process_that_holds_it_may_take_it_again() -> None:
    with hold():
        with hold():
            pass
        assert json.loads(project_lock.PATH.read_text())["pid"] == os.getpid()
