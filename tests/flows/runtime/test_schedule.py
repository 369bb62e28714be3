"""A schedule as a command: how it ends, and that what it started ends with it."""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from flows import overrides
from flows.runtime import project_lock, schedule, server
from flows.runtime.project_lock import ProjectLocked
from flows.runtime.server import Server, ServerError
from tasks.harness.section import PARAMS

URL = "http://127.0.0.1:4200/api"


@pytest.fixture(autouse=True)
def a_server_is_there(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def for_schedule() -> Iterator[Server]:
        yield Server(URL)

    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.com")
    for words in (("init", "-q"), ("add", PARAMS), ("commit", "-q", "-m", "start")):
        subprocess.run((*git, *words), cwd=checkout, check=True)
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


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be run beside a server."""
    monkeypatch.delenv("CRON", raising=False)
    started: list[list[str]] = []
    monkeypatch.setattr(schedule, "run", started.append)
    return started


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("", ""),
        ("0 3 * *", ""),
        ("0 3 * * * *", ""),
        ("61 3 * * *", "asking Prefect when '61 3 * * *' comes due\n"),
    ],
)
def test_a_cron_expression_that_is_none_is_refused_before_a_schedule_is_announced(
    cron: str, said: str, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    message = f'--cron={cron!r} is no cron expression; five fields are, for example "0 3 * * *"'
    with pytest.raises(SystemExit, match=f"^schedule: {re.escape(message)}$"):
        schedule.main(["--cron", cron])
    assert capsys.readouterr() == (said, "")
    assert commands == []


@pytest.mark.parametrize("cron", ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *"])
def test_a_cron_expression_that_never_comes_due(
    cron: str, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    message = f"--cron={cron!r} never comes due: no such date exists"
    with pytest.raises(SystemExit, match=f"^schedule: {re.escape(message)}$"):
        schedule.main(["--cron", cron])
    assert capsys.readouterr() == (f"asking Prefect when {cron!r} comes due\n", "")
    assert commands == []


@pytest.mark.parametrize("cron", ["0 0 29 2 *", "0 0 31 12 *", "0 0 31 * *", "*/5 * * * 1-5"])
def test_a_cron_expression_that_comes_due_seldom(cron: str, commands: list[list[str]]) -> None:
    schedule.main(["--cron", cron])
    assert commands[0][-2] == cron


@pytest.mark.parametrize("seconds", ["0", "-1", "often"])
def test_an_interval_that_is_none(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        schedule.main([f"--interval={seconds}"])
    assert f"{seconds!r} is no number of seconds" in capsys.readouterr().err


def test_a_schedule_is_a_cron_expression_or_an_interval(commands: list[list[str]]) -> None:
    schedule.main(["--cron", "0 3 * * *"])
    schedule.main(["--interval", "15"])
    assert [command[-3:] for command in commands] == [["flows.serve", "0 3 * * *", "0"], ["flows.serve", "", "15"]]
    with pytest.raises(SystemExit, match="2"):
        schedule.main([])


def test_make_says_when_by_the_environment(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRON", "0 4 * * *")
    schedule.main([])
    schedule.main(["--interval", "15"])
    assert [command[-2:] for command in commands] == [["0 4 * * *", "0"], ["", "15"]]
    monkeypatch.setenv("CRON", "0 4")
    with pytest.raises(SystemExit, match=r"^schedule: CRON='0 4' is no cron expression; "):
        schedule.main([])


@pytest.mark.parametrize("name", ["DATASET", "RECIPE"])
def test_a_recipe_is_not_for_a_schedule(name: str, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "digits")
    message = f"{name}=digits: a schedule trains by params.yaml; make run {name}=... writes it"
    with pytest.raises(SystemExit, match=f"^schedule: {message}$"):
        schedule.main(["--interval", "15"])
    assert commands == []


@pytest.mark.parametrize(
    ("words", "first", "due"),
    [
        (
            ["--cron", "0 3 * * *"],
            "asking Prefect when '0 3 * * *' comes due\n",
            "when '0 3 * * *' comes due, UTC",
        ),
        (["--interval", "15"], "", "every 15 s"),
    ],
)
def test_it_says_first_what_will_run_and_when(
    words: list[str], first: str, due: str, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    schedule.main(words)
    stages = "download, transform, train, evaluate, export, and into service if it is better"
    assert capsys.readouterr().out == f"{first}retraining on fashion_mnist, {due}: {stages}\n"


def test_it_says_what_is_not_committed(commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    overrides.write(["train.epochs=7"])
    schedule.main(["--interval", "15"])
    assert capsys.readouterr().out.endswith("\nnot trained, because it is not committed: params.yaml\n")


def test_without_a_commit_there_is_none(commands: list[list[str]]) -> None:
    shutil.rmtree(".git")
    subprocess.run(("git", "init", "-q"), check=True)
    with pytest.raises(SystemExit, match="retraining needs the project in a git repository"):
        schedule.main(["--interval", "15"])
    assert not commands


def test_params_that_every_run_would_refuse_are_refused_before_a_server_is_started(commands: list[list[str]]) -> None:
    PARAMS.write_text("train: {}\n")
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.com")
    subprocess.run((*git, "commit", "-q", "-am", "half"), check=True)
    with pytest.raises(SystemExit, match=r"^schedule: params\.yaml, as committed, is refused:"):
        schedule.main(["--interval", "15"])
    assert commands == []
