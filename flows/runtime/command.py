"""The training flow as a command: its lock, its server, its end."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NoReturn

from flows import overrides
from flows.report import summary
from flows.runtime import checkout, inbox, last_good, project_lock, server
from flows.runtime.project_lock import ProjectLocked
from flows.runtime.server import Server, ServerError
from tasks import dvc
from tasks.__main__ import STAGES
from tasks.data import strangers
from tasks.data.datasets import DATASETS
from tasks.dvc import StageFailed, StageRun
from tasks.harness.errors import ParamsError, StageError

Training = Callable[[list[str]], list[StageRun]]  # flows.training.training


class ServerGone(Exception):
    """The server at `url` has ended or hangs."""

    def __init__(self, url: str) -> None:
        super().__init__(f"Prefect's server at {url} has gone; what the stages made is kept, the same command goes on")


class Terminated(BaseException):
    """SIGTERM has arrived."""


def run(flow: Callable[[], Training], changes: list[str], wait_s: float = 0) -> None:
    """Run the training flow and print what came of it; exit with 1 and the reason if it failed.

    Args:
        flow: imports it, once it has been said what will run.
        changes: to params.yaml, see flows.training.
        wait_s: how long to wait for another run in this project.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        checkout.check()
        with project_lock.hold(wait_s):
            print(f"training on {source(changes)}: {', '.join(STAGES)}", flush=True)
            training = flow()
            with _watched(server.for_run()):
                runs = training(changes)
            print(f"\n{summary.summary(runs)}")
    except StageFailed as error:
        sys.exit(f"\ntraining failed. {error.reason}\n{last_good.way_back(error.stage)}")
    except (ParamsError, StageError, ProjectLocked, ServerError) as error:
        sys.exit(f"\ntraining failed. {error}")
    except ServerGone as gone:
        sys.exit(f"\ntraining stopped. {gone}")
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


def source(changes: list[str]) -> str:
    """Name the data that are asked for, having seen that a run on them may begin.

    Raises:
        StageError: it would remove what no run has made, or the data cannot be read.
        ParamsError: params.yaml or a change to it is refused.
    """
    strangers.check()
    params = overrides.check(changes).download
    inbox.links_to_folders(params)
    own = DATASETS[params.dataset].format == "files"
    return f"{params.dataset} in {params.path}" if own else params.dataset


def _terminate(*_: object) -> NoReturn:
    raise Terminated


@contextmanager
def _watched(used: Server) -> Iterator[None]:
    """Watch the server while the body, a flow, runs on it."""
    over = threading.Event()
    threading.Thread(target=_leave_when_gone, args=(used, over), daemon=True).start()
    try:
        yield
    except (StageFailed, StageError, ParamsError):
        raise  # these have a reason of their own
    except Exception as error:
        if used.answers():
            raise
        raise ServerGone(used.url) from error
    finally:
        over.set()


def _leave_when_gone(used: Server, over: threading.Event) -> None:
    """End the process once the server has gone, after the stage that is running, which can do without one.

    Prefect would go on for minutes trying to reach it, and then show its insides.
    """
    while used.wait_until_gone(over.is_set):
        logging.raiseExceptions = False  # else each part of its log that Prefect cannot deliver is an error here
        with dvc.AT_WORK:
            if not used.is_back() and not over.is_set():
                server.kill(server.TEMPORARY)
                with ExitStack() as silence:  # else the flow's thread would log the end of the stage in between
                    for handler in logging.root.handlers:
                        handler.acquire()
                        silence.callback(handler.release)
                    os._exit(_say_gone(used.url))


def _say_gone(url: str) -> int:
    """Say why the run ends, and return its exit code."""
    for error in dvc.interruptions:  # who stops everything at once, as systemd does, stops the server, too
        number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM
        _say_stopped(number, error)
        return 128 + number
    _say(f"training stopped. {ServerGone(url)}")
    return 1


def _say_stopped(number: signal.Signals, error: BaseException) -> None:
    where = "".join(f" {note}" for note in _notes(error))
    there = " there" if where else ""
    _say(f"training was stopped by {number.name}{where}; the same command goes on{there}")


def _say(last_words: str) -> None:
    """Write them in one piece: `print` writes the line break apart, and other threads may write in between."""
    sys.stderr.write(f"\n{last_words}\n")
    sys.stderr.flush()


def _notes(error: BaseException | None) -> Iterator[str]:
    """Yield what tasks.dvc has noted: the stage that was interrupted.

    Prefect catches SIGTERM itself, and sends it again once its own exception has gone through the stage.
    """
    while error:
        yield from getattr(error, "__notes__", ())
        error = error.__context__
