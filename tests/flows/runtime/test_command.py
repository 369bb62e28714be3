"""The training flow as a command: what it says and how it exits, however the run ends."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from flows.report import summary
from flows.runtime import command, server
from flows.runtime.command import Terminated
from flows.runtime.server import Server, ServerError
from tasks import dvc
from tasks.dvc import StageFailed, StageRun
from tasks.harness import lock
from tasks.harness.errors import StageError
from tasks.harness.lock import Locked
from tasks.harness.section import PARAMS
from tests.support.mirror import serve

FIRST_LINE = "training on fashion_mnist: download, transform, train, evaluate, export"
URL = "http://127.0.0.1:9/api"
GONE = f"\ntraining stopped. Prefect's server at {URL} has gone; what the stages made is kept, the same command goes on"
ASKED = Server._answers  # as it is, for a server that is there
UNREACHABLE = RuntimeError("Failed to reach API at http://x/api")


@pytest.fixture(autouse=True)
def without_a_server(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "for_run", lambda: Server(URL))
    monkeypatch.setattr(Server, "_answers", lambda *_: True)
    monkeypatch.setattr(server, "ASKED_EVERY_S", 0.01)
    monkeypatch.setattr(server, "PATIENCE_S", 0)
    monkeypatch.setattr(dvc, "interruptions", [])
    monkeypatch.setattr(logging, "raiseExceptions", True)


def raising(error: BaseException) -> Callable[[list[str]], list[StageRun]]:
    """Make a training that ends with `error`."""

    def training(changes: list[str]) -> NoReturn:
        raise error

    return training


def noted(error: BaseException) -> BaseException:
    error.add_note("in the stage train")
    return error


def exit_code(training: Callable[[list[str]], list[StageRun]], changes: list[str] | None = None) -> str | int | None:
    """Run the command and return what it exits with: a code, or a sentence, which means 1."""
    with pytest.raises(SystemExit) as exit_:
        command.run(lambda: training, changes or [])
    return exit_.value.code


def test_a_run_that_is_complete_prints_its_summary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(summary, "summary", lambda runs: f"{len(runs)} stages")
    command.run(lambda: lambda changes: [StageRun("train", "ran", 1.0)], [])
    assert capsys.readouterr().out == f"{FIRST_LINE}\n\n1 stages\n"


@pytest.mark.parametrize(
    ("change", "data"),
    [("download.dataset=mnist", "mnist"), ("download.dataset=folder", "folder in data/inbox")],
)
def test_what_will_run_on_which_data_is_said_before_the_flow_is_imported(
    change: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def flow() -> NoReturn:
        assert capsys.readouterr().out == FIRST_LINE.replace("fashion_mnist", data) + "\n"
        raise StageError("enough")

    with pytest.raises(SystemExit, match="enough"):
        command.run(flow, [change])


def test_a_stage_that_failed_is_named_with_its_log_and_the_way_back() -> None:
    assert exit_code(raising(StageFailed("train: the loss is not finite\n  at epoch 3"))) == (
        "\ntraining failed. train: the loss is not finite\n  at epoch 3\n"
        "log: .cache/logs/train.log\n"
        "back to the last commit: git restore params.yaml dvc.lock reports"
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StageError("reports/data.json is not what a stage wrote"), "reports/data.json is not what a stage wrote"),
        (ServerError("port 4200 cannot be had"), "port 4200 cannot be had"),
        (UNREACHABLE, f"{UNREACHABLE}: start it with prefect server start, or unset PREFECT_API_URL"),
    ],
    ids=["of a report", "of the server", "of Prefect"],
)
def test_any_other_reason_is_one_sentence(error: Exception, reason: str) -> None:
    assert exit_code(raising(error)) == f"\ntraining failed. {reason}"


def test_a_defect_keeps_its_traceback() -> None:
    for error in (RuntimeError("a defect"), ZeroDivisionError()):
        with pytest.raises(type(error)):
            command.run(partial(raising, error), [])


def test_refused_changes_end_it_before_a_server_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "for_run", lambda: pytest.fail("a server was started"))
    before = PARAMS.read_bytes()
    reason = str(exit_code(raising(ZeroDivisionError()), ["train.epochs=0"]))
    assert reason.startswith("\ntraining failed. params.yaml with train.epochs=0 is refused:\n  train.epochs = 0: ")
    assert PARAMS.read_bytes() == before


def test_a_second_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: object) -> NoReturn:
        raise Locked({"pid": 7, "host": "here", "since": "noon"})

    monkeypatch.setattr(lock, "hold", locked)
    reason = str(exit_code(raising(ZeroDivisionError())))
    assert reason.startswith("\ntraining failed. the run with pid 7 on here, since noon is at work in this project")


def test_who_stops_it_is_told_in_which_stage_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(raising(noted(KeyboardInterrupt()))) == 128 + signal.SIGINT
    stopped = "\ntraining was stopped by SIGINT in the stage train; the same command goes on there\n"
    assert capsys.readouterr().err == stopped


def test_sigterm_ends_it_though_prefect_has_caught_it_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Prefect sends it again once its own exception has gone through the stage: the note is at that one."""

    def training(changes: list[str]) -> NoReturn:
        try:
            raise noted(RuntimeError("Prefect's"))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    assert exit_code(training) == 128 + signal.SIGTERM
    stopped = "\ntraining was stopped by SIGTERM in the stage train; the same command goes on there\n"
    assert capsys.readouterr().err == stopped


def test_who_stops_it_outside_a_stage_is_told_that_it_can_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(raising(KeyboardInterrupt())) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "\ntraining was stopped by SIGINT; the same command goes on\n"


def test_a_signal_after_the_first_does_not_disturb_the_end() -> None:
    exit_code(raising(KeyboardInterrupt()))
    assert signal.getsignal(signal.SIGINT) == signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_what_dvc_cannot_hash_is_said_before_params_are_written() -> None:
    before = PARAMS.read_text()
    with pytest.raises(SystemExit, match=r"download.path = 'elsewhere': there is nothing of that name"):
        command.run(lambda: raising(AssertionError("it was to be refused")), ["download.path=elsewhere"])
    assert PARAMS.read_text() == before


def test_a_defect_of_prefects_without_a_server_is_that_the_server_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "_answers", lambda *_: False)
    monkeypatch.setattr(Server, "wait_until_gone", lambda *_: False)
    assert exit_code(raising(ConnectionError("refused"))) == GONE


def test_a_stage_that_failed_is_the_reason_even_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "_answers", lambda *_: False)
    monkeypatch.setattr(Server, "wait_until_gone", lambda *_: False)
    said = str(exit_code(raising(StageFailed("train: the loss is not finite"))))
    assert said.startswith("\ntraining failed. train: the loss is not finite\n")


@pytest.mark.parametrize(
    ("interruption", "code", "said"),
    [
        (None, 1, GONE),
        (Terminated(), 143, "\ntraining was stopped by SIGTERM in the stage train; the same command goes on there"),
        (
            KeyboardInterrupt(),
            130,
            "\ntraining was stopped by SIGINT in the stage train; the same command goes on there",
        ),
    ],
    ids=["by itself", "SIGTERM to all", "SIGINT to all"],
)
def test_a_server_that_has_gone_ends_the_run_after_its_stage(
    interruption: BaseException | None,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked, left = threading.Event(), threading.Event()
    codes = []

    def leave(code: int) -> None:
        codes.append(code)
        monkeypatch.setattr(Server, "_answers", lambda *_: True)  # in place of the process's end
        left.set()

    def training(changes: list[str]) -> list[StageRun]:
        with dvc.AT_WORK:
            monkeypatch.setattr(Server, "_answers", lambda *_: asked.set())
            assert asked.wait(60)
            if interruption:
                dvc.interruptions.append(noted(interruption))
            assert not codes
        assert left.wait(60)
        return []

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(summary, "summary", lambda _: "")
    command.run(lambda: training, [])
    assert codes == [code]
    assert capsys.readouterr().err == f"{said}\n"


def test_a_run_whose_stage_is_over_does_not_wait_again_for_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    at_work, gone, left = threading.Event(), threading.Event(), threading.Event()

    def wait_until_gone(*_: object) -> bool:
        assert at_work.wait(60)
        gone.set()
        return True

    def leave(_: int) -> None:
        monkeypatch.setattr(Server, "wait_until_gone", lambda *_: False)
        left.set()

    def training(changes: list[str]) -> list[StageRun]:
        with dvc.AT_WORK:
            at_work.set()
            assert gone.wait(60)
        assert left.wait(10)
        return []

    monkeypatch.setattr(server, "BACK_WITHIN_S", 0.1)
    monkeypatch.setattr(server, "HANGS_AFTER_S", 60)
    monkeypatch.setattr(Server, "_answers", ASKED)
    monkeypatch.setattr(Server, "wait_until_gone", wait_until_gone)
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(summary, "summary", lambda _: "")
    with serve({}) as mirror:
        monkeypatch.setattr(server, "for_run", lambda: Server(mirror.url("hang").rstrip("/")))
        command.run(lambda: training, [])
    assert mirror.requests["hang"] == 1


def test_a_server_that_is_back_when_the_stage_ends_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def training(changes: list[str]) -> list[StageRun]:
        asked = threading.Event()
        with dvc.AT_WORK:
            monkeypatch.setattr(Server, "_answers", lambda *_: asked.set())
            assert asked.wait(60)
            monkeypatch.setattr(Server, "_answers", lambda *_: True)
        return []

    monkeypatch.setattr(os, "_exit", lambda _: pytest.fail("the process was ended"))
    monkeypatch.setattr(summary, "summary", lambda _: "")
    command.run(lambda: training, [])
