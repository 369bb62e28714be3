"""Prefect's server for a run or a schedule: the one that is there, or one that ends with whoever started it.

A run that is killed leaves its server behind. Which process that is stands in `TEMPORARY` (of a schedule, in
`SCHEDULE`), and the next run ends it.
"""

import atexit
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

TEMPORARY = Path(".cache/temporary-server.json")  # of a run
SCHEDULE = Path(".cache/schedule-server.json")
LOG = Path(".cache/logs/server.log")
STARTS_WITHIN_S = 120
ENDS_WITHIN_S = 10
ASKED_EVERY_S = 2
PATIENCE_S = 15  # with a server that cannot be reached: it may be one that is being started again
HANGS_AFTER_S = 20  # without an answer; on a machine with much to do one takes seconds
BACK_WITHIN_S = 5  # an answer of one that had gone: a run that is over waits for it
HOST = "127.0.0.1"
COMMAND = (sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app")
OPTIONS = ("--log-level", "warning", "--timeout-graceful-shutdown", "5")
FINAL = {"PREFECT__SERVER_FINAL": "1"}  # as Prefect's own command sets it: one application in the process
# As Prefect starts a server for a run that has none: without the UI and the services that nobody would see.
EPHEMERAL = FINAL | {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT_SERVER_UI_ENABLED": "false"}


class ServerError(Exception):
    """There is no server, none could be started, or it has gone."""


@dataclass(frozen=True)
class Server:
    """Where a server's API is, and the process of one that was started here."""

    url: str
    process: "subprocess.Popen[bytes] | None" = None

    def wait_until_gone(self, over: Callable[[], bool]) -> bool:
        """Return True once it has ended or has not answered for PATIENCE_S, or False once `over` says so.

        One that hangs is no more use than one that was killed: it is asked once, for HANGS_AFTER_S.
        """
        failing_since = None
        while not over():
            if self._has_ended():
                return True
            asked = time.monotonic()
            if self.answers():
                failing_since = None
            elif failing_since is None:
                failing_since = asked
            if failing_since is not None and time.monotonic() - failing_since >= PATIENCE_S:
                return True
            time.sleep(ASKED_EVERY_S)
        return False

    def is_back(self) -> bool:
        """Tell whether it answers again, within BACK_WITHIN_S, after it had gone."""
        return self._answers(BACK_WITHIN_S)

    def answers(self) -> bool:
        """Tell whether it answers; with what does not matter, unless it is an error of its own: Prefect has the key."""
        return self._answers(HANGS_AFTER_S)

    def _answers(self, within_s: float) -> bool:
        if self._has_ended():
            return False
        try:
            return requests.get(f"{self.url}/health", timeout=within_s).status_code < 500
        except requests.exceptions.SSLError:  # and the certificate
            return True
        except requests.RequestException:
            return False

    def _has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None


def for_run() -> Server:
    """Give the flows of this process the server of PREFECT_API_URL, or a temporary one, which ends with the process.

    Raises:
        ServerError: the configured server does not answer, or none could be started.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings  # see flows.train

    end(TEMPORARY)
    if url := PREFECT_API_URL.value():
        return _configured(url)
    stack = ExitStack()
    atexit.register(stack.close)  # before Prefect registers what sends the last lines of its log
    server = stack.enter_context(_started(TEMPORARY, 0, EPHEMERAL))
    stack.enter_context(temporary_settings({PREFECT_API_URL: server.url}))
    logging.getLogger("prefect.flow_runs").addFilter(_is_no_link)
    return server


def _configured(url: str) -> Server:
    server = Server(url)
    if not server.answers():
        raise ServerError(f"PREFECT_API_URL={url} does not answer: start that server, or unset PREFECT_API_URL")
    return server


def _is_no_link(record: logging.LogRecord) -> bool:
    """Leave out links into the UI, which a temporary server has not."""
    return not record.getMessage().startswith("View at ")


@contextmanager
def for_schedule() -> Iterator[Server]:
    """Yield the server of PREFECT_API_URL, one on this machine, or one that ends with the body.

    Raises:
        ServerError: the configured server does not answer, or none could be started.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_API_PORT

    if url := PREFECT_API_URL.value():
        yield _configured(url)
        return
    port = PREFECT_SERVER_API_PORT.value()
    url = _at(port)
    if not healthy(url):
        with _started(SCHEDULE, port, FINAL) as server:
            yield server
        return
    try:
        yield Server(url)
    finally:
        end(SCHEDULE)  # it may be that of a schedule that was killed; who else started it keeps it


def of_schedule() -> Server:
    """Return the server of a schedule that is at work, without ending anything.

    Raises:
        ServerError: it does not answer.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_API_PORT

    if url := PREFECT_API_URL.value():
        return _configured(url)
    url = _at(PREFECT_SERVER_API_PORT.value())
    if not healthy(url):
        raise ServerError(
            f"a schedule is at work in this project, and its server does not answer at {url}: "
            "it may be about to start, or PREFECT_SERVER_API_PORT was another"
        )
    return Server(url)


def _at(port: int) -> str:
    return f"http://{HOST}:{port}/api"


def healthy(url: str) -> bool:
    """Tell whether it is a Prefect server on this machine, and ready."""
    try:
        return requests.get(f"{url}/health", timeout=5).ok
    except requests.RequestException:
        return False


@contextmanager
def _started(record: Path, port: int, settings: Mapping[str, str]) -> Iterator[Server]:
    """Start a server on `port`, or on a free one where that is 0; yield it once it answers.

    Raises:
        ServerError: the port is taken, the server's folder cannot be made, or it does not answer.
    """
    _make_home()
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((HOST, port))
        except OSError as error:
            raise ServerError(
                f"port {port} cannot be had ({error.strerror}): PREFECT_SERVER_API_PORT names another"
            ) from None
        url = _at(bound.getsockname()[1])
        process = _start(bound, settings)
    try:
        note(process, record)
        _wait_until_healthy(process, url)
        yield Server(url, process)
    finally:
        end(record)
        process.terminate()  # where the record has been removed meanwhile
        process.wait()


def _start(bound: socket.socket, settings: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("w") as log:
        return subprocess.Popen(
            (*COMMAND, *OPTIONS, "--fd", str(bound.fileno())),  # bound here, so that no other process gets the port
            pass_fds=[bound.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **settings},
            # A group of its own: a signal to that of the run, by a terminal or a supervisor, would end it together
            # with the flow, which would then try for minutes to tell it how it ended.
            process_group=0,
        )


def _make_home() -> None:
    """Make the folder of Prefect's database, without which a server would try for minutes to start."""
    from prefect.settings import PREFECT_HOME

    home = PREFECT_HOME.value()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServerError(
            f"PREFECT_HOME={home} cannot be made ({error.strerror}): name a folder that can be written to"
        ) from None


def _wait_until_healthy(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not healthy(url):
        if process.poll() is not None:
            raise ServerError(f"the Prefect server ended with {process.returncode}: {_last_line()} (see {LOG})")
        if time.monotonic() > deadline:
            raise ServerError(f"the Prefect server did not answer at {url} within {STARTS_WITHIN_S} s, see {LOG}")
        time.sleep(0.1)


def _last_line() -> str:
    lines = LOG.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def note(process: "subprocess.Popen[bytes]", record: Path) -> None:
    """Write to `record` which process it is: its pid, and the hash of that and its start, because pids come again.

    psutil's hash counts from the start of the machine, where it can: its creation time moves when the clock is set.
    """
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps({"pid": process.pid, "hash": hash(psutil.Process(process.pid))}))


def _find(record: Path) -> psutil.Process | None:
    """Return the process that `record` names, if it still runs."""
    try:
        noted = json.loads(record.read_text())
        process = psutil.Process(noted["pid"])
        return process if hash(process) == noted["hash"] else None
    except (FileNotFoundError, ValueError, KeyError, psutil.NoSuchProcess):
        return None


def end(record: Path) -> None:
    """End the server that `record` names, if it still runs."""
    if process := _find(record):
        process.terminate()
        _, running = psutil.wait_procs([process], timeout=ENDS_WITHIN_S)
        for stubborn in running:
            _kill(stubborn)


def kill(record: Path) -> None:
    """End the server that `record` names, if it still runs, where it has been waited for: it hangs."""
    if process := _find(record):
        _kill(process)


def _kill(process: psutil.Process) -> None:
    process.kill()
    psutil.wait_procs([process], timeout=ENDS_WITHIN_S)
