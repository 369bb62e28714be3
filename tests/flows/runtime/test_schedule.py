"""A schedule as a command: how it ends, and that what it started ends with it."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Thread, Timer
from zoneinfo import ZoneInfo

import psutil
import pytest
from prefect.server.schemas.schedules import CronSchedule

from flows import overrides
from flows.runtime import deployments, project_lock, schedule, server, worker
from flows.runtime.project_lock import ProjectLocked
from flows.runtime.server import Server, ServerError
from tasks.harness.section import PARAMS

URL = "http://127.0.0.1:4200/api"
ExitCode = Callable[..., str | int | None]


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


@pytest.fixture(autouse=True)
def deployed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """What was deployed, and where."""
    calls: list[tuple[str, str, str]] = []
    monkeypatch.setattr(deployments, "put", lambda *what: calls.append(what))
    return calls


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """On which server, which answers, the runs were settled, and the rest of them, and whether as ended by a person."""
    calls: list[tuple[str, bool]] = []

    def cancel(url: str, _: float) -> bool:
        calls.append((url, True))
        return True

    monkeypatch.setattr(deployments, "cancel", cancel)
    monkeypatch.setattr(deployments, "settle_at", lambda url, by_hand: calls.append((f"rest at {url}", by_hand)))
    return calls


@pytest.fixture(autouse=True)
def followed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """On which server the form was brought to what is committed, each time."""
    calls: list[str] = []
    monkeypatch.setattr(deployments.Form, "follow", lambda form: calls.append(form.url))
    return calls


@pytest.fixture
def exit_code(monkeypatch: pytest.MonkeyPatch) -> ExitCode:
    """Run a schedule with `command` as its worker, and return what it exits with."""

    def run(command: Sequence[str] = ("true",)) -> str | int | None:
        monkeypatch.setattr(deployments, "worker", lambda: command)
        with pytest.raises(SystemExit) as exit_:
            schedule.run("0 3 * * *", "Europe/Berlin")
        return exit_.value.code

    return run


def test_where_its_runs_are_is_said_and_told_to_who_starts_them(
    exit_code: ExitCode,
    deployed: list[tuple[str, str, str]],
    settled: list[tuple[str, bool]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = exit_code(("sh", "-c", "echo $PREFECT_API_URL; exit 3"))
    assert code == "schedule: Prefect's worker ended with exit code 3; the lines above say why"
    said = "Retraining is scheduled; its runs are at http://127.0.0.1:4200. Ctrl-C ends it."
    assert sorted(capfd.readouterr().out.splitlines()) == sorted(["", said, URL])
    assert deployed == [(URL, "0 3 * * *", "Europe/Berlin")]
    assert settled == [(f"rest at {URL}", False)], "what its worker, as it ended, may have killed"


def test_what_cannot_be_deployed_is_the_reason(exit_code: ExitCode, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(*_: str) -> None:
        raise ServerError("prefect.yaml cannot be deployed:\nno such flow")

    monkeypatch.setattr(deployments, "put", put)
    assert exit_code() == "schedule: prefect.yaml cannot be deployed:\nno such flow"


def test_the_worker_of_a_schedule_that_was_killed_is_ended_first(exit_code: ExitCode) -> None:
    with subprocess.Popen(("sleep", "60")) as left:
        server.note(left, schedule.WORKER)
        exit_code()
        assert not psutil.pid_exists(left.pid)


def test_without_a_server_it_says_why(exit_code: ExitCode, monkeypatch: pytest.MonkeyPatch) -> None:
    def for_schedule() -> None:
        raise ServerError("port 4200 cannot be had")

    monkeypatch.setattr(server, "for_schedule", for_schedule)
    assert exit_code() == "schedule: port 4200 cannot be had"


def test_a_second_schedule_is_refused(exit_code: ExitCode, monkeypatch: pytest.MonkeyPatch) -> None:
    def hold(path: Path) -> None:
        assert path == project_lock.SCHEDULE
        raise ProjectLocked("the run with pid 7 on here, since noon")

    monkeypatch.setattr(project_lock, "hold", hold)
    assert exit_code() == "schedule: there is one already in this project: the run with pid 7 on here, since noon"


# As Prefect's worker does, it starts a run, and kills it at SIGINT.
SERVING = """
import os, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
told = "import pathlib, signal, sys, time;"
told += "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path('run.told').touch(), time.sleep(0.5), sys.exit()));"
told += "pathlib.Path('run.ready').touch(); time.sleep(20)"
run = subprocess.Popen((sys.executable, "-c", told), process_group=0)
print(run.pid, file=open("run.pid", "w"), flush=True)
while not os.path.exists("run.ready"):
    pass
try:
    os.kill(os.getppid(), int(sys.argv[1]))
    run.wait()
    signal.pause()
except KeyboardInterrupt:
    open("run.killed" if run.poll() is None else "run.let.end", "w").close()
    run.kill()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_the_runs_that_it_started(
    number: signal.Signals,
    exit_code: ExitCode,
    settled: list[tuple[str, bool]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    signal.signal(number, lambda *_: None)  # one that the schedule did not take would end this process
    assert exit_code((sys.executable, "-c", SERVING, str(int(number)))) == 128 + number
    assert capsys.readouterr().err == "schedule: ended; its runs, too\n"
    assert settled == [(URL, True), (f"rest at {URL}", True)]
    assert sorted(path.name for path in Path().glob("run.*")) == ["run.let.end", "run.pid", "run.ready", "run.told"]
    run = int(Path("run.pid").read_text())
    assert not psutil.pid_exists(run)


def test_where_the_server_does_not_answer_a_signal_ends_the_run_with_its_stage_alone(
    exit_code: ExitCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployments, "cancel", lambda *_: False)
    monkeypatch.setattr(deployments, "settle_at", lambda *_, **__: pytest.fail("it was asked once more"))
    kill = psutil.Process.kill  # which on a busy machine takes a moment
    monkeypatch.setattr(psutil.Process, "kill", lambda killed: Timer(0.5, kill, (killed,)).start())

    def interrupt() -> None:
        wait_until_there("run.started")
        os.kill(os.getpid(), signal.SIGINT)

    person = Thread(target=interrupt)
    person.start()
    began = time.monotonic()
    assert exit_code((sys.executable, "-c", SERVING_ONE, RUN, "in order")) == 128 + signal.SIGINT
    person.join()
    assert time.monotonic() - began < 15
    assert Path("run.ended").exists()
    assert not running()


def wait_until_there(name: str) -> None:
    while not Path(name).exists():
        time.sleep(0.01)


def test_what_does_not_end_is_killed(exit_code: ExitCode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "ENDS_WITHIN_S", 0.3)
    monkeypatch.setattr(schedule, "WORKER_ENDS_WITHIN_S", 0.3)
    monkeypatch.setattr(deployments, "worker", lambda: ("sh", "-c", "trap '' INT TERM; touch ready; sleep 60"))
    with schedule._working(URL, "0 3 * * *", "UTC") as (process, _):
        wait_until_there("ready")
    assert process.returncode == -signal.SIGKILL


RUN = """
import signal, subprocess, sys, time
stage = subprocess.Popen(("sleep", "20"))
def end_stage(*_):
    if sys.argv[1:]:
        time.sleep(0.5)
        open("run.ended", "w").close()
        stage.kill()
        stage.wait()
signal.signal(signal.SIGTERM, end_stage)
open("run.started", "w").close()
time.sleep(60)  # whether or not its stage has ended, as one that tries to tell the server
"""
# As the worker does, it says in the environment of its run which process has started that.
SERVING_ONE = f"""
import os, subprocess, sys
os.environ["{worker.PID}"] = str(os.getpid())
subprocess.run((sys.executable, "-c", *sys.argv[1:]), process_group=0)
"""


def running(program: str = RUN) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if program in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.parametrize("in_order", [True, False], ids=["a run that ends its stage", "one that hangs"])
def test_once_its_server_has_gone_it_ends_with_its_runs(
    in_order: bool, exit_code: ExitCode, settled: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "STAGE_ENDS_WITHIN_S", 30 if in_order else 0.3)
    monkeypatch.setattr(Server, "answers", lambda _: not Path("run.started").exists())
    monkeypatch.setattr(server, "PATIENCE_S", 0)
    began = time.monotonic()
    code = exit_code((sys.executable, "-c", SERVING_ONE, RUN, *["in order"] * in_order))
    assert code == f"schedule: Prefect's server at {URL} has gone; its runs are ended, too"
    assert Path("run.ended").exists() is in_order
    assert settled == []
    assert time.monotonic() - began < 20
    while left := running():  # one that was killed is there until the system has had time for it
        assert time.monotonic() - began < 20, left
        time.sleep(0.1)


# Its run goes on until it is told to end; without a grace it does not end then, either.
LEAVING_ONE = f"""
import os, signal, subprocess, sys
os.environ["{worker.PID}"] = str(os.getpid())
subprocess.Popen((sys.executable, "-c", *sys.argv[1:]), start_new_session=True)
while not os.path.exists("run.started"):
    pass
"""
LEFT = """
import sys, time
open("run.started", "w").close()
time.sleep(float(sys.argv[1]))
open("run.ended", "w").close()
"""


@pytest.mark.parametrize("for_s", [1, 60], ids=["a run that ends", "one that does not"])
def test_a_worker_that_ends_is_the_reason_once_its_runs_have_ended_or_were_killed(
    for_s: int, exit_code: ExitCode, settled: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "ENDS_WITHIN_S", 0.3 if for_s == 60 else 30)
    settle_at = deployments.settle_at

    def settling(url: str, by_hand: bool) -> None:
        assert not running(LEFT)
        settle_at(url, by_hand)

    monkeypatch.setattr(deployments, "settle_at", settling)
    code = exit_code((sys.executable, "-c", LEAVING_ONE, LEFT, str(for_s)))
    assert code == "schedule: Prefect's worker ended with exit code 0; the lines above say why"
    assert Path("run.ended").exists() is (for_s == 1)
    assert settled == [(f"rest at {URL}", False)]


def test_the_form_follows_what_is_committed_for_as_long_as_the_schedule_runs(
    exit_code: ExitCode, followed: list[str]
) -> None:
    exit_code(("sleep", "0.5"))
    assert set(followed) == {URL}
    assert len(followed) > 5, "before the first run can begin, and every ASKED_EVERY_S"


def test_a_server_that_has_gone_is_the_reason_where_its_worker_failed(
    exit_code: ExitCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "answers", lambda _: False)
    assert exit_code(("false",)) == f"schedule: Prefect's server at {URL} has gone; its runs are ended, too"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """When the runs of a schedule would come due, by whose clock."""
    for name in ("CRON", "TZ"):
        monkeypatch.delenv(name, raising=False)
    calls: list[tuple[str, str]] = []
    monkeypatch.setattr(schedule, "run", lambda cron, zone: calls.append((cron, zone)))
    return calls


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
    cron: str, said: str, started: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    message = f'--cron={cron!r} is no cron expression; five fields are, for example "0 3 * * *"'
    with pytest.raises(SystemExit, match=f"^schedule: {re.escape(message)}$"):
        schedule.main(["--cron", cron])
    assert capsys.readouterr() == (said, "")
    assert started == []


@pytest.mark.parametrize("cron", ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *"])
def test_a_cron_expression_that_never_comes_due(
    cron: str, started: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    message = f"--cron={cron!r} never comes due: no such date exists"
    with pytest.raises(SystemExit, match=f"^schedule: {re.escape(message)}$"):
        schedule.main(["--cron", cron])
    assert capsys.readouterr() == (f"asking Prefect when {cron!r} comes due\n", "")
    assert started == []


@pytest.mark.parametrize("cron", ["0 0 29 2 *", "0 0 31 12 *", "0 0 31 * *", "*/5 * * * 1-5"])
def test_a_cron_expression_that_comes_due_seldom(cron: str, started: list[tuple[str, str]]) -> None:
    schedule.main(["--cron", cron])
    assert started == [(cron, "UTC")]


@pytest.mark.parametrize(
    ("night", "due"),
    [
        ("2026-03-28", ["28 02:30 +01", "29 03:30 +02", "30 02:30 +02"]),  # on the 29th there is no half past two
        ("2026-10-24", ["24 02:30 +02", "25 02:30 +02", "26 02:30 +01"]),  # on the 25th there are two
    ],
)
def test_daylight_saving_makes_no_night_two_or_none(night: str, due: list[str]) -> None:
    schedule = CronSchedule(cron="30 2 * * *", timezone="Europe/Berlin")
    start = datetime.fromisoformat(night).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    found = asyncio.run(schedule.get_dates(3, start=start))
    assert [f"{date:%d %H:%M %z}".removesuffix("00") for date in found] == due


@pytest.mark.parametrize("zone", ["Europe/Berlim", "CEST-2", "../etc/passwd", "europe/berlin"])
def test_a_time_zone_that_is_none(zone: str, started: list[tuple[str, str]]) -> None:
    message = f"--timezone={zone!r} is no time zone; Europe/Berlin is one, and UTC"
    with pytest.raises(SystemExit, match=f"^schedule: {re.escape(message)}$"):
        schedule.main(["--cron", "0 3 * * *", "--timezone", zone])
    assert started == []


def test_make_says_when_by_the_environment(started: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="2"):
        schedule.main([])
    monkeypatch.setenv("CRON", "0 4 * * *")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    schedule.main([])
    schedule.main(["--cron", "0 5 * * *", "--timezone", "Asia/Tokyo"])
    assert started == [("0 4 * * *", "Europe/Berlin"), ("0 5 * * *", "Asia/Tokyo")]
    monkeypatch.setenv("CRON", "0 4")
    with pytest.raises(SystemExit, match=r"^schedule: CRON='0 4' is no cron expression; "):
        schedule.main([])
    monkeypatch.setenv("TZ", "CEST-2")
    with pytest.raises(SystemExit, match=r"^schedule: TZ='CEST-2' is no time zone; "):
        schedule.main([])


@pytest.mark.parametrize("name", ["DATASET", "RECIPE"])
def test_a_recipe_is_not_for_a_schedule(
    name: str, started: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "digits")
    message = f"{name}=digits: a schedule trains by params.yaml; make run {name}=... writes it"
    with pytest.raises(SystemExit, match=f"^schedule: {message}$"):
        schedule.main(["--cron", "0 3 * * *"])
    assert started == []


def test_it_says_first_what_will_run_and_when(
    started: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    schedule.main(["--cron", "0 3 * * *", "--timezone", "Europe/Berlin"])
    stages = "download, transform, train, evaluate, export, and into service if it is better"
    assert capsys.readouterr().out == (
        "asking Prefect when '0 3 * * *' comes due\n"
        f"retraining on fashion_mnist, when '0 3 * * *' comes due, Europe/Berlin: {stages}\n"
    )


def test_it_says_what_is_not_committed(started: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    overrides.write(["train.epochs=7"])
    schedule.main(["--cron", "0 3 * * *"])
    assert capsys.readouterr().out.endswith("\nnot trained, because it is not committed: params.yaml\n")


def test_without_a_commit_there_is_none(started: list[tuple[str, str]]) -> None:
    shutil.rmtree(".git")
    subprocess.run(("git", "init", "-q"), check=True)
    with pytest.raises(SystemExit, match="retraining needs the project in a git repository"):
        schedule.main(["--cron", "0 3 * * *"])
    assert not started


def test_params_that_every_run_would_refuse_are_refused_before_a_server_is_started(
    started: list[tuple[str, str]],
) -> None:
    PARAMS.write_text("train: {}\n")
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.com")
    subprocess.run((*git, "commit", "-q", "-am", "half"), check=True)
    with pytest.raises(SystemExit, match=r"^schedule: params\.yaml, as committed, is refused:"):
        schedule.main(["--cron", "0 3 * * *"])
    assert started == []
