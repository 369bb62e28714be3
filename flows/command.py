"""The training flow as a command: its lock, its server, its end."""

import logging
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from prefect.settings import PREFECT_API_URL

from flows import overrides, project_lock, report
from flows.project_lock import ProjectLocked
from flows.server import ServerError
from tasks import dvc
from tasks.dvc import StageFailed, StageRun, log_path
from tasks.params import ParamsError
from tasks.stage import StageError


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
            overrides.check(changes)
            if not PREFECT_API_URL.value():
                from flows import temporary_server  # slow to import, and needed only here

                temporary_server.start()
            runs = flow(changes)
            print(f"\n{report.summary(runs)}")
    except StageFailed as error:
        sys.exit(f"\ntraining failed. {error.reason}\n{_way_back(error.stage)}")
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
        where = f"in the stage {dvc.asked_for}" if dvc.asked_for else "before the first stage"
        print(f"\ntraining was stopped by {number.name} {where}; the same command goes on there", file=sys.stderr)
        sys.exit(128 + number)


def _terminate(*_: object) -> NoReturn:
    raise Terminated


def _way_back(stage: str) -> str:
    return f"log: {log_path(stage)}\nback to the last commit: git restore params.yaml dvc.lock reports && dvc checkout"
