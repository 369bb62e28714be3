"""Prefect's server for a run or a schedule: started, found, ended."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import requests
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_SERVER_API_PORT, temporary_settings

from flows.runtime import server
from flows.runtime.server import Server, ServerError
from tests.support.mirror import Mirror, serve


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path) -> None:
    pass


@pytest.mark.parametrize("same", [True, False], ids=["the one that was started", "another with its pid"])
def test_a_server_that_was_left_is_ended_and_no_other(same: bool) -> None:
    with subprocess.Popen(("sleep", "60")) as process:
        server.note(process, server.TEMPORARY)
        if not same:
            noted = json.loads(server.TEMPORARY.read_text())
            server.TEMPORARY.write_text(json.dumps(noted | {"hash": noted["hash"] - 9}))
        server.end(server.TEMPORARY)
        assert (process.poll() is not None) is same
        process.kill()


def test_a_server_that_was_left_is_ended_though_the_clock_was_set_since(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(("sleep", "60")) as process:
        server.note(process, server.TEMPORARY)
        before = psutil.Process.create_time
        monkeypatch.setattr(psutil.Process, "create_time", lambda one: before(one) + 9)
        server.end(server.TEMPORARY)
        ended = process.poll() is not None
        process.kill()
    assert ended


def test_no_server_was_left() -> None:
    server.end(server.TEMPORARY)


@pytest.fixture
def answering() -> Iterator[Mirror]:
    """A server that says that it is healthy."""
    with serve({"health": b"true"}) as mirror:
        yield mirror


@pytest.fixture
def none_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_start", lambda *_: pytest.fail("a server was started"))


def test_a_server_that_is_configured_is_taken_if_it_answers(answering: Mirror, none_starts: None) -> None:
    url = answering.url("api").rstrip("/")
    with temporary_settings({PREFECT_API_URL: url}):
        server.for_run()
        with server.for_schedule() as taken:
            assert taken.url == url
    broken = answering.url("500")
    message = f"PREFECT_API_URL={broken} does not answer: start that server, or unset PREFECT_API_URL"
    schedule = server.for_schedule()
    with temporary_settings({PREFECT_API_URL: broken}), pytest.raises(ServerError, match=f"^{message}$"), schedule:
        pass


@pytest.mark.parametrize(("behaviour", "gone"), [("ok", False), ("401", False), ("503", True), ("hang", True)])
def test_any_answer_but_an_error_of_its_own_shows_that_a_server_is_there(
    behaviour: str, gone: bool, answering: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANGS_AFTER_S", 0.2)
    monkeypatch.setattr(server, "ASKED_EVERY_S", 0.01)
    monkeypatch.setattr(server, "PATIENCE_S", 0.1)
    deadline = time.monotonic() + (60 if gone else 0.5)
    used = Server(answering.url(behaviour).rstrip("/"))
    assert used.answers() is not gone
    assert used.wait_until_gone(lambda: time.monotonic() > deadline) is gone


def test_a_server_that_hangs_is_waited_for_once(answering: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANGS_AFTER_S", 0.2)
    monkeypatch.setattr(server, "ASKED_EVERY_S", 0.01)
    monkeypatch.setattr(server, "PATIENCE_S", 0.1)
    assert Server(answering.url("hang").rstrip("/")).wait_until_gone(lambda: False)
    assert answering.requests["hang"] == 1


def test_a_run_and_a_schedule_have_seen_within_30_s_that_a_server_hangs() -> None:
    assert server.PATIENCE_S < server.HANGS_AFTER_S, "one request is enough"
    assert server.ASKED_EVERY_S + server.HANGS_AFTER_S + server.BACK_WITHIN_S < 30


def test_a_server_with_much_to_do_has_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ASKED_EVERY_S", 0.01)
    monkeypatch.setattr(server, "PATIENCE_S", 0.1)
    answered = []

    def get(*_: object, timeout: float) -> SimpleNamespace:
        time.sleep(0.2)
        assert timeout > 10 * server.PATIENCE_S
        answered.append(200)
        return SimpleNamespace(status_code=200)

    monkeypatch.setattr(requests, "get", get)
    assert not Server("").wait_until_gone(lambda: len(answered) == 3)


def test_a_server_that_is_started_again_in_time_has_not_gone(
    answering: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ASKED_EVERY_S", 0.01)
    monkeypatch.setattr(server, "PATIENCE_S", 0.1)
    answers = iter([False, True] * 20)
    monkeypatch.setattr(Server, "answers", lambda _: next(answers, True))
    deadline = time.monotonic() + 0.5
    assert not Server("").wait_until_gone(lambda: time.monotonic() > deadline)


def test_a_server_that_was_started_here_has_gone_as_soon_as_its_process_has_ended(answering: Mirror) -> None:
    used = Server(answering.url("ok").rstrip("/"), subprocess.Popen(("sleep", "60")))
    assert used.process is not None
    assert used.answers()
    used.process.kill()
    used.process.wait()
    assert used.wait_until_gone(lambda: False)
    assert not used.answers()


@pytest.mark.parametrize("of_a_schedule", [True, False], ids=["of a schedule that was killed", "of somebody else"])
def test_a_server_on_the_port_is_taken_and_ended_only_if_it_was_left(
    of_a_schedule: bool, answering: Mirror, none_starts: None
) -> None:
    port = temporary_settings({PREFECT_SERVER_API_PORT: answering.server_port})
    with subprocess.Popen(("sleep", "60")) as process, port:
        if of_a_schedule:
            server.note(process, server.SCHEDULE)
        with server.for_schedule() as taken:
            assert taken.url == answering.url("api").rstrip("/")
            assert process.poll() is None
        assert (process.poll() is not None) is of_a_schedule
        process.kill()


def test_a_server_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ENDS_WITHIN_S", 0.2)
    stubborn = ("sh", "-c", "trap '' TERM; echo ready; exec sleep 60")
    with subprocess.Popen(stubborn, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        server.note(process, server.TEMPORARY)
        server.end(server.TEMPORARY)
        assert not psutil.pid_exists(process.pid)


def test_a_server_that_hangs_is_killed_at_once() -> None:
    with subprocess.Popen(("sleep", "60")) as process:
        process.send_signal(signal.SIGSTOP)
        server.note(process, server.TEMPORARY)
        server.kill(server.TEMPORARY)
        assert not psutil.pid_exists(process.pid)
    server.kill(server.TEMPORARY)


def test_a_port_that_something_else_uses_is_named(tmp_path: Path) -> None:
    with serve({}) as other:
        port = other.server_port
        message = rf"^port {port} cannot be had \(Address already in use\): PREFECT_SERVER_API_PORT names another$"
        settings = temporary_settings({PREFECT_HOME: tmp_path, PREFECT_SERVER_API_PORT: port})
        schedule = server.for_schedule()
        with settings, pytest.raises(ServerError, match=message), schedule:
            pass


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    home = temporary_settings({PREFECT_HOME: tmp_path / "file/home"})
    started = server._started(server.TEMPORARY, 0, {})
    with (
        home,
        pytest.raises(ServerError, match=r"PREFECT_HOME=.*/file/home cannot be made \(Not a directory\)"),
        started,
    ):
        pass


def test_a_server_that_ends_at_once_is_said_with_its_last_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(server, "COMMAND", ("sh", "-c", "echo no database; exit 3"))
    started = server._started(server.TEMPORARY, 0, {})
    home = temporary_settings({PREFECT_HOME: tmp_path})
    with home, pytest.raises(ServerError, match=r"the Prefect server ended with 3: no database \(see"), started:
        pass
