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
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import requests
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_SERVER_API_PORT, temporary_settings

TEMPORARY = Path(".cache/temporary-server.json")  # of a run
SCHEDULE = Path(".cache/schedule-server.json")
LOG = Path(".cache/logs/server.log")
STARTS_WITHIN_S = 120
ENDS_WITHIN_S = 10
HOST = "127.0.0.1"
COMMAND = (sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app")
OPTIONS = ("--log-level", "warning", "--timeout-graceful-shutdown", "5")
FINAL = {"PREFECT__SERVER_FINAL": "1"}  # as Prefect's own command sets it: one application in the process
# As Prefect starts a server for a run that has none: without the UI and the services that nobody would see.
EPHEMERAL = FINAL | {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT_SERVER_UI_ENABLED": "false"}


class ServerError(Exception):
    """There is no server, and none could be started."""


def for_run() -> None:
    """Give the flows of this process the server of PREFECT_API_URL, or a temporary one, which ends with the process.

    Raises:
        ServerError: none could be started.
    """
    end(TEMPORARY)
    if PREFECT_API_URL.value():
        return
    server = ExitStack()
    atexit.register(server.close)  # before Prefect registers what sends the last lines of its log
    url = server.enter_context(_started(TEMPORARY, 0, EPHEMERAL))
    server.enter_context(temporary_settings({PREFECT_API_URL: url}))
    logging.getLogger("prefect.flow_runs").addFilter(_is_no_link)


def _is_no_link(record: logging.LogRecord) -> bool:
    """Leave out links into the UI, which a temporary server has not."""
    return not record.getMessage().startswith("View at ")


@contextmanager
def for_schedule() -> Iterator[str]:
    """Yield the API's URL of PREFECT_API_URL, of a server on this machine, or of one that ends with the body.

    Raises:
        ServerError: the configured server does not answer, or none could be started.
    """
    if url := PREFECT_API_URL.value():
        if not healthy(url):
            raise ServerError(f"PREFECT_API_URL={url} does not answer: start that server, or unset PREFECT_API_URL")
        yield url
        return
    port = PREFECT_SERVER_API_PORT.value()
    url = f"http://{HOST}:{port}/api"
    if not healthy(url):
        with _started(SCHEDULE, port, FINAL) as url:
            yield url
        return
    try:
        yield url
    finally:
        end(SCHEDULE)  # it may be that of a schedule that was killed; who else started it keeps it


def healthy(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=5).ok
    except requests.RequestException:
        return False


@contextmanager
def _started(record: Path, port: int, settings: Mapping[str, str]) -> Iterator[str]:
    """Start a server on `port`, or on a free one where that is 0; yield the API's URL once it answers.

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
        url = f"http://{HOST}:{bound.getsockname()[1]}/api"
        process = _start(bound, settings)
    try:
        _note(process, record)
        _wait_until_healthy(process, url)
        yield url
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


def _note(process: "subprocess.Popen[bytes]", record: Path) -> None:
    """Write to `record` which process it is: its pid and its start, because pids come again."""
    started = psutil.Process(process.pid).create_time()
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps({"pid": process.pid, "started": started}))


def _find(record: Path) -> psutil.Process | None:
    """Return the process that `record` names, if it still runs."""
    try:
        noted = json.loads(record.read_text())
        process = psutil.Process(noted["pid"])
        return process if process.create_time() == noted["started"] else None
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None


def end(record: Path) -> None:
    """End the server that `record` names, if it still runs."""
    if process := _find(record):
        process.terminate()
        _, running = psutil.wait_procs([process], timeout=ENDS_WITHIN_S)
        for stubborn in running:
            stubborn.kill()
            stubborn.wait()
