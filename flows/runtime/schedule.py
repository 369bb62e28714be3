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

STOPPED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed
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
            server.for_schedule() as url,
            _serving(serving, url) as process,
        ):
            print(f"Retraining is scheduled; its runs are at {url.removesuffix('/api')}. Ctrl-C ends it.", flush=True)
            code = process.wait()
        sys.exit(f"schedule: Prefect stopped serving the flow, exit code {code}; the lines above say why")
    except server.ServerError as error:
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
