"""The worker of a schedule and its runs: each ends with whoever has started it."""

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from flows.runtime import worker
from tests.support.nights import left
from tests.support.params import ROOT

SOON_S = 20
# As the schedule, they start the worker, whose runpy starts a run instead of Prefect's command line, and wait.
WORKER = """
import runpy, subprocess, sys, time
from flows.runtime import worker
def run_module(name, run_name):
    assert (name, run_name, sys.argv[1:3]) == ("prefect", "__main__", ["worker", "start"])
    run = subprocess.Popen((sys.executable, "-c", sys.argv_of_run), start_new_session=True, stdout=subprocess.PIPE)
    print(run.pid, flush=True)
    time.sleep(60)
runpy.run_module = run_module
sys.argv_of_run = sys.argv.pop()
worker.main(sys.argv[1:])
"""
RUN = """
import signal, sys, time
from flows.runtime import worker
signal.signal(signal.SIGTERM, lambda *_: (print("its last words", flush=True), open("told", "w").close(), sys.exit()))
time.sleep(BEFORE)
worker.end_run_with_worker()
open("tied", "w").close()
time.sleep(60)
"""
SCHEDULE = """
import os, subprocess, sys
subprocess.run((sys.executable, "-c", sys.argv[1], str(os.getpid()), "pool", sys.argv[2]))
"""


@pytest.mark.parametrize("before_s", [0, 2], ids=["at work", "that is about to begin"])
@pytest.mark.parametrize("whom", ["schedule", "worker"])
def test_a_run_ends_as_by_sigterm_once_its_worker_or_its_schedule_was_killed(
    whom: str, before_s: int, tmp_path: Path
) -> None:
    run = RUN.replace("BEFORE", str(before_s))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = (sys.executable, "-c", SCHEDULE, WORKER, run)
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=pipe, start_new_session=True) as schedule:
        assert schedule.stdout is not None
        at_work = psutil.Process(int(schedule.stdout.readline()))
        (its_worker,) = psutil.Process(schedule.pid).children()
        while not before_s and not (tmp_path / "tied").exists():
            assert at_work.is_running()
        (its_worker if whom == "worker" else schedule).send_signal(signal.SIGKILL)
        psutil.wait_procs([its_worker, at_work], SOON_S)
        assert not left([its_worker, at_work])
    assert (tmp_path / "told").exists()


def test_a_run_that_somebody_elses_worker_has_started_ends_with_that(monkeypatch: pytest.MonkeyPatch) -> None:
    tied: list[tuple[int, signal.Signals]] = []
    monkeypatch.setattr(worker, "end_with", lambda *what: tied.append(what))
    monkeypatch.delenv(worker.PID, raising=False)
    worker.end_run_with_worker()
    monkeypatch.setenv(worker.PID, "7")
    worker.end_run_with_worker()
    assert tied == [(os.getppid(), signal.SIGTERM), (7, signal.SIGTERM)]


LOGGING = """
import logging, sys
from prefect.logging.handlers import PrefectConsoleHandler
from flows.runtime import worker
worker.end_run_with_worker()
for line in ("Crash detected!", "Finished in state Crashed"):
    PrefectConsoleHandler(sys.stderr).handle(logging.makeLogRecord({"msg": line}))
open("told", "w").close()
"""


def test_a_run_whose_log_nobody_reads_any_more_goes_on(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run((sys.executable, "-c", LOGGING), cwd=tmp_path, env=environment, stderr=writer, check=True)
    os.close(writer)
    assert (tmp_path / "told").exists()


def test_a_signal_while_prefect_is_imported_leaves_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_module(name: str, run_name: str) -> NoReturn:
        assert sys.argv[1:7] == ["worker", "start", "--pool", "a pool", "--name", "a pool"]
        raise KeyboardInterrupt

    monkeypatch.setattr(runpy, "run_module", run_module)
    monkeypatch.setattr(sys, "argv", ["worker"])
    monkeypatch.setattr(worker, "end_with", lambda *_: None)
    monkeypatch.setenv(worker.PID, "")
    with pytest.raises(SystemExit, match=r"^130$"):
        worker.main(["7", "a pool"])
