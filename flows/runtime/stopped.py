"""Signals that stop a command, as an exception."""

import os
import signal
import threading
import time
from typing import NoReturn

STOPPED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed

ASKED_EVERY_S = 0.1


class Stopped(BaseException):
    """One of STOPPED_BY has arrived."""

    def __init__(self, number: int) -> None:
        self.number = number


def stop(number: int, _: object) -> NoReturn:
    """Raise Stopped, as the handler of a signal."""
    for other in STOPPED_BY:
        signal.signal(other, signal.SIG_IGN)  # once is enough
    raise Stopped(number)


def end_with(parent: int, number: signal.Signals) -> None:
    """Have this process end by a signal once the one that has started it, `parent`, has ended, killed as it may be."""
    threading.Thread(target=_end_with, args=(parent, number), daemon=True).start()


def _end_with(parent: int, number: signal.Signals) -> None:
    while os.getppid() == parent:
        time.sleep(ASKED_EVERY_S)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        os.dup2(nowhere, output)  # the parent read it: Prefect's log ends a process that writes to a pipe nobody reads
    os.kill(os.getpid(), number)
