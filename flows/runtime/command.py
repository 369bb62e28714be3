"""The training flow as a command: its lock, its server, its end."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from flows import overrides
from flows.report import summary
from flows.runtime import inbox, last_good, project_lock, server
from flows.runtime.project_lock import ProjectLocked
from flows.runtime.server import ServerError
from tasks.dvc import StageFailed, StageRun
from tasks.harness.errors import ParamsError, StageError

REPORTS_WITHIN_S = 15  # to Prefect that it was stopped, and DVC and its stage have ended

Training = Callable[[list[str]], list[StageRun]]  # flows.training.training


class Terminated(BaseException):
    """SIGTERM has arrived."""


def run(training: Training, changes: list[str], wait_s: float = 0) -> None:
    """Run the training flow and print what came of it; exit with 1 and the reason if it failed.

    Args:
        changes: to params.yaml, see flows.training.
        wait_s: how long to wait for another run in this project.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with project_lock.hold(wait_s):
            inbox.links_to_folders(overrides.check(changes).download)
            server.for_run()
            print(f"\n{summary.summary(training(changes))}")
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
            signal.signal(other, signal.SIG_IGN)  # the server is about to be ended
        _say_stopped(number, error)
        sys.exit(128 + number)


def _terminate(*_: object) -> NoReturn:
    error = Terminated()
    # Who stops everything at once, as systemd does, stops the server, too, and Prefect goes on trying to reach it.
    timer = threading.Timer(REPORTS_WITHIN_S, _leave, (error,))
    timer.daemon = True
    timer.start()
    raise error


def _leave(error: Terminated) -> NoReturn:
    server.end(server.TEMPORARY)
    _say_stopped(signal.SIGTERM, error)
    os._exit(128 + signal.SIGTERM)


def _say_stopped(number: signal.Signals, error: BaseException) -> None:
    where = "".join(f" {note}" for note in _notes(error))
    there = " there" if where else ""
    print(
        f"\ntraining was stopped by {number.name}{where}; the same command goes on{there}", file=sys.stderr, flush=True
    )


def _notes(error: BaseException | None) -> Iterator[str]:
    """Yield what tasks.dvc has noted: the stage that was interrupted.

    Prefect catches SIGTERM itself, and sends it again once its own exception has gone through the stage.
    """
    while error:
        yield from getattr(error, "__notes__", ())
        error = error.__context__
