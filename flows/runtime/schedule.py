"""A schedule as a command: its lock, its server, the process that starts its runs, and their end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil

from flows.runtime import project_lock, server
from flows.runtime.project_lock import ProjectLocked
from flows.runtime.server import ServerError

STOPPED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed
STAGE_ENDS_WITHIN_S = 15
ENDS_WITHIN_S = 30  # a run that is stopped has its stage to end, and the server to tell


class Stopped(BaseException):
    """One of STOPPED_BY has arrived."""

    def __init__(self, number: int) -> None:
        self.number = number


def run(serving: Sequence[str]) -> None:
    """Run the command `serving`, which starts the runs, beside a server until a signal arrives.

    It exits as commands do: with 1 and the reason if it cannot go on, with 128 and more after a signal.
    """
    for number in STOPPED_BY:
        signal.signal(number, _stop)
    try:
        with (
            project_lock.hold(path=project_lock.SCHEDULE),
            server.for_schedule() as used,
            _serving(serving, used.url) as process,
        ):
            where = used.url.removesuffix("/api")
            print(f"Retraining is scheduled; its runs are at {where}. Ctrl-C ends it.", flush=True)
            gone = used.wait_until_gone(lambda: process.poll() is not None) or not used.answers()
            if gone:
                _kill(process)
                raise ServerError(f"Prefect's server at {used.url} has gone; its runs are ended, too")
        sys.exit(f"schedule: Prefect stopped serving the flow, exit code {process.returncode}; the lines above say why")
    except ServerError as error:
        sys.exit(f"schedule: {error}")
    except ProjectLocked as locked:
        sys.exit(f"schedule: there is one already in this project: {locked.holder}")
    except Stopped as stopped:
        print("schedule: ended; its runs, too", file=sys.stderr)
        sys.exit(128 + stopped.number)


def _stop(number: int, _: object) -> None:
    for other in STOPPED_BY:
        signal.signal(other, signal.SIG_IGN)  # once is enough
    raise Stopped(number)


@contextmanager
def _serving(command: Sequence[str], url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Serve the flow in a process of its own, which ends, with the runs it started, before the server does."""
    process = subprocess.Popen(command, env={**os.environ, "PREFECT_API_URL": url}, process_group=0)
    try:
        yield process
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End `process` and its runs: at SIGINT it starts no more and waits for those at work, which SIGTERM ends."""
    process.send_signal(signal.SIGINT)
    told: set[psutil.Process] = set()
    deadline = time.monotonic() + ENDS_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):
            for started in set(psutil.Process(process.pid).children()) - told:
                told.add(started)
                started.terminate()
        time.sleep(0.1)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End `process` and its runs where there is no server: it could not be told, and nobody is to wait for that.

    A run has its stage to end, by SIGTERM, and nothing else.
    """
    with suppress(psutil.NoSuchProcess):
        runs = psutil.Process(process.pid).children()
        process.kill()
        for started in runs:
            started.terminate()
        deadline = time.monotonic() + STAGE_ENDS_WITHIN_S
        while any(map(_at_work, runs)) and time.monotonic() < deadline:
            time.sleep(0.1)
        for started in filter(_at_work, runs):
            started.kill()


def _at_work(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
