"""Signals that stop a command, as an exception."""

import signal
from typing import NoReturn

STOPPED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed


class Stopped(BaseException):
    """One of STOPPED_BY has arrived."""

    def __init__(self, number: int) -> None:
        self.number = number


def stop(number: int, _: object) -> NoReturn:
    """Raise Stopped, as the handler of a signal."""
    for other in STOPPED_BY:
        signal.signal(other, signal.SIG_IGN)  # once is enough
    raise Stopped(number)
