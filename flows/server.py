"""A Prefect server for a schedule: the one that is there, or one of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_SERVER_API_PORT

from flows import leftover

LOG = Path(".cache/logs/server.log")
STARTS_WITHIN_S = 120


class ServerError(Exception):
    """There is no server, and none could be started."""


@contextmanager
def at_hand() -> Iterator[str]:
    """Yield the API's URL of PREFECT_API_URL, of a server on this machine, or of one that ends with the body.

    Raises:
        ServerError: the configured server does not answer, or none could be started.
    """
    if url := PREFECT_API_URL.value():
        if not healthy(url):
            raise ServerError(f"PREFECT_API_URL={url} does not answer: start that server, or unset PREFECT_API_URL")
        yield url
        return
    url = f"http://127.0.0.1:{PREFECT_SERVER_API_PORT.value()}/api"
    process = None if healthy(url) else _start()
    try:
        if process:
            _wait_until_healthy(process, url)
        yield url
    finally:
        leftover.end(leftover.SCHEDULE)  # the one just started, or that of a schedule that was killed


def _start() -> "subprocess.Popen[bytes]":
    make_home()
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("w") as log:
        command = [sys.executable, "-m", "prefect", "server", "start"]
        # A group of its own: a terminal's Ctrl-C is for the schedule, which has to tell the server how runs ended.
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PREFECT_CLI_WRAP_LINES": "false"},  # its last line may be the reason why it ended
            process_group=0,
        )
    leftover.record(process, leftover.SCHEDULE)
    return process


def make_home() -> None:
    """Make the folder of Prefect's database, without which a server would try for minutes to start.

    Raises:
        ServerError: it is not there, and cannot be made.
    """
    home = PREFECT_HOME.value()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServerError(
            f"PREFECT_HOME={home} cannot be made ({error.strerror}): name a folder that can be written to"
        ) from None


def healthy(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=5).ok
    except requests.RequestException:
        return False


def _wait_until_healthy(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not healthy(url):
        if process.poll() is not None:
            raise ServerError(f"the Prefect server ended with {process.returncode}: {_last_line()} (see {LOG})")
        if time.monotonic() > deadline:
            raise ServerError(f"the Prefect server did not answer at {url} within {STARTS_WITHIN_S} s, see {LOG}")
        time.sleep(0.2)


def _last_line() -> str:
    lines = LOG.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
