"""A schedule as a command: how it ends, and that what it started ends with it."""

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from flows.runtime import project_lock, schedule, server
from flows.runtime.project_lock import ProjectLocked
from flows.runtime.server import Server, ServerError

URL = "http://127.0.0.1:4200/api"


@pytest.fixture(autouse=True)
def a_server_is_there(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def for_schedule() -> Iterator[Server]:
        yield Server(URL)

    monkeypatch.setattr(server, "for_schedule", for_schedule)
    monkeypatch.setattr(server, "ASKED_EVERY_S", 0.01)
    monkeypatch.setattr(Server, "answers", lambda _: True)


def exit_code(command: Sequence[str] = ("true",)) -> str | int | None:
    """Run a schedule whose runs are started by `command`, and return what it exits with."""
    with pytest.raises(SystemExit) as exit_:
        schedule.run(command)
    return exit_.value.code


def test_where_its_runs_are_is_said_and_told_to_who_starts_them(capfd: pytest.CaptureFixture[str]) -> None:
    code = exit_code(("sh", "-c", "echo $PREFECT_API_URL; exit 3"))
    assert code == "schedule: Prefect stopped serving the flow, exit code 3; the lines above say why"
    said = "Retraining is scheduled; its runs are at http://127.0.0.1:4200. Ctrl-C ends it."
    assert sorted(capfd.readouterr().out.splitlines()) == sorted([said, URL])


def test_without_a_server_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def for_schedule() -> None:
        raise ServerError("port 4200 cannot be had")

    monkeypatch.setattr(server, "for_schedule", for_schedule)
    assert exit_code() == "schedule: port 4200 cannot be had"


def test_a_second_schedule_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def hold(path: Path) -> None:
        assert path == project_lock.SCHEDULE
        raise ProjectLocked("the run with pid 7 on here, since noon")

    monkeypatch.setattr(project_lock, "hold", hold)
    assert exit_code() == "schedule: there is one already in this project: the run with pid 7 on here, since noon"


# As Prefect does, it starts a run, and waits for the run to end after SIGINT, too.
SERVING = """
import os, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
run = subprocess.Popen(("sleep", "20"), process_group=0)
print(run.pid, file=open("run.pid", "w"), flush=True)
try:
    os.kill(os.getppid(), int(sys.argv[1]))
    run.wait()
except KeyboardInterrupt:
    run.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_the_runs_that_it_started(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    signal.signal(number, lambda *_: None)  # one that the schedule did not take would end this process
    assert exit_code((sys.executable, "-c", SERVING, str(int(number)))) == 128 + number
    assert capsys.readouterr().err == "schedule: ended; its runs, too\n"
    run = int(Path("run.pid").read_text())
    assert not psutil.pid_exists(run)


def test_what_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "ENDS_WITHIN_S", 0.3)
    with schedule._serving(("sh", "-c", "trap '' INT TERM; touch ready; sleep 60"), URL) as process:
        while not Path("ready").exists():
            time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL


RUN = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (open("run.ended", "w").close(), sys.exit()) if sys.argv[1:] else None)
open("run.started", "w").close()
time.sleep(60)
"""
SERVING_ONE = "import subprocess, sys; subprocess.run((sys.executable, '-c', *sys.argv[1:]))"


@pytest.mark.parametrize("in_order", [True, False], ids=["a run that ends its stage", "one that hangs"])
def test_once_its_server_has_gone_it_ends_with_its_runs(in_order: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "STAGE_ENDS_WITHIN_S", 30 if in_order else 0.3)
    monkeypatch.setattr(Server, "answers", lambda _: not Path("run.started").exists())
    monkeypatch.setattr(server, "PATIENCE_S", 0)
    began = time.monotonic()
    code = exit_code((sys.executable, "-c", SERVING_ONE, RUN, *["in order"] * in_order))
    assert code == f"schedule: Prefect's server at {URL} has gone; its runs are ended, too"
    assert Path("run.ended").exists() is in_order
    assert time.monotonic() - began < 20
    assert not [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if RUN in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def test_a_server_that_has_gone_is_the_reason_where_serving_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "answers", lambda _: False)
    assert exit_code(("false",)) == f"schedule: Prefect's server at {URL} has gone; its runs are ended, too"
