"""The training flow as a command: its lock, its server, its end."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from prefect.settings import PREFECT_API_URL

from flows import last_good, leftover, overrides, project_lock, report
from flows.project_lock import ProjectLocked
from flows.server import ServerError
from tasks import dvc
from tasks.dvc import StageFailed, StageRun
from tasks.params import ParamsError
from tasks.stage import StageError

REPORTS_WITHIN_S = 15  # to Prefect that it was stopped, and DVC and its stage have ended


class Terminated(BaseException):
    """SIGTERM has arrived."""


def run(flow: Callable[[list[str]], list[StageRun]], changes: list[str], wait_s: float = 0) -> None:
    """Run the training flow and print what came of it; exit with 1 and the reason if it failed.

    Args:
        flow: flows.training.training.
        changes: to params.yaml, see there.
        wait_s: how long to wait for another run in this project.
    """
    # That it starts and stops a temporary server.
    logging.getLogger("prefect").addFilter(lambda record: record.levelno > logging.INFO)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with project_lock.hold(wait_s):
            leftover.end(leftover.TEMPORARY)
            overrides.check(changes)
            if not PREFECT_API_URL.value():
                from flows import temporary_server  # slow to import, and needed only here

                temporary_server.start()
            runs = flow(changes)
            print(f"\n{report.summary(runs)}")
    except StageFailed as error:
        sys.exit(f"\ntraining failed. {error.reason}\n{last_good.way_back(error.stage)}")
    except (ParamsError, StageError, ProjectLocked, ServerError) as error:
        sys.exit(f"\ntraining failed. {error}")
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        sys.exit(f"\ntraining failed. {error}: start it with prefect server start, or unset PREFECT_API_URL")
    except (KeyboardInterrupt, Terminated) as error:
        number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        for other in (signal.SIGINT, signal.SIGTERM):
            signal.signal(other, signal.SIG_IGN)  # the temporary server is about to be ended
        _say_stopped(number)
        sys.exit(128 + number)


def _terminate(*_: object) -> NoReturn:
    # Who stops everything at once, as systemd does, stops the server, too, and Prefect goes on trying to reach it.
    timer = threading.Timer(REPORTS_WITHIN_S, _leave)
    timer.daemon = True
    timer.start()
    raise Terminated


def _leave() -> NoReturn:
    leftover.end(leftover.TEMPORARY)
    _say_stopped(signal.SIGTERM)
    os._exit(128 + signal.SIGTERM)


def _say_stopped(number: signal.Signals) -> None:
    where = f"in the stage {dvc.asked_for}" if dvc.asked_for else "before the first stage"
    print(
        f"\ntraining was stopped by {number.name} {where}; the same command goes on there", file=sys.stderr, flush=True
    )
