"""Prefect flows: when the stages run."""

import os
import signal
import sys
from typing import NoReturn

import tasks as tasks  # it refuses the wrong Python, before Prefect is missed


def _end_before_it_began(number: int, _: object) -> NoReturn:
    os.write(2, f"stopped by {signal.Signals(number).name} before the run began\n".encode())
    os._exit(128 + number)


if sys.argv[0] == "-m":  # `python -m flows.<flow>`: its imports take seconds
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, _end_before_it_began)
