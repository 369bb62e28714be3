"""The command `search`: who may begin one, and what it is shared between."""

import os
import re
import signal
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from flows import search
from flows.search import FOLDER, shares
from tasks.harness import lock
from tasks.harness.errors import StageError
from tests.support.params import write_params


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_the_same_command_goes_on(
    checkout: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    signal.signal(number, signal.SIG_DFL)  # a shell's background jobs begin with SIGINT ignored
    monkeypatch.setattr(search, "search", lambda: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as stopped:
        search.main([])
    assert stopped.value.code == 128 + number
    assert capsys.readouterr().err == f"\nthe search was stopped by {number.name}; the same command goes on there\n"


def test_nohup_keeps_it_going(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(search, "search", lambda: os.kill(os.getpid(), signal.SIGHUP))
    search.main([])


def test_a_second_one_names_the_first(checkout: Path) -> None:
    with (
        lock.hold(FOLDER / "lock", 0),
        pytest.raises(SystemExit, match=f"^make search: the search with pid {os.getpid()} is at work in this project$"),
    ):
        search.main([])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StageError("the reason"), "the reason"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device; the same command goes on there"),
    ],
)
def test_what_has_a_reason_is_one_sentence(
    checkout: Path, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> NoReturn:
        raise error

    monkeypatch.setattr(search, "search", fail)
    with pytest.raises(SystemExit, match=f"^make search: {re.escape(said)}$"):
        search.main([])


@pytest.mark.parametrize(
    ("parallel", "threads", "devices", "at_a_time", "changed"),
    [
        (None, None, 1, 1, {}),  # a training takes all cores
        (None, 2, 1, 4, {}),
        (None, 16, 1, 1, {}),
        (None, 2, 2, 2, {}),
        (4, None, 1, 4, {"train.threads": 2}),
        (16, None, 1, 16, {"train.threads": 1}),
        (3, 2, 1, 3, {}),
        (1, None, 1, 1, {}),
    ],
)
def test_trials_share_the_cores(
    workspace: Path,
    parallel: int | None,
    threads: int | None,
    devices: int,
    at_a_time: int,
    changed: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    params = write_params(search={"parallel": parallel}, train={"threads": threads, "devices": devices})
    assert shares(params) == (at_a_time, changed)
