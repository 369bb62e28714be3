"""The training flow on a schedule.

Reads:  params.yaml, dvc.yaml
Writes: what the training flow writes, and .cache/logs/server.log
Run:    python -m flows.retraining --cron "0 3 * * *"
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.client.schemas.schedules import CronSchedule
from prefect.states import Completed

from flows import last_good, leftover, project_lock, server
from flows.project_lock import ProjectLocked
from flows.training import training
from tasks.dvc import StageFailed
from tasks.params import BatchSize, DatasetName, Epochs, LearningRate, Seed

STOPPED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed
ENDS_WITHIN_S = 30  # a run that is stopped has its stage to end, and the server to tell
# Until it is imported, which takes seconds, SIGINT ends it without a traceback.
SERVE = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
from flows import retraining
retraining.serve(sys.argv[1], int(sys.argv[2]))
"""
KEYS = {
    "dataset": "download.dataset",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "learning_rate": "train.learning_rate",
    "seed": "train.seed",
}


@flow(name="retraining")
def retraining(
    dataset: DatasetName | None = None,
    epochs: Epochs | None = None,
    batch_size: BatchSize | None = None,
    learning_rate: LearningRate | None = None,
    seed: Seed | None = None,
) -> State[Any]:
    """Bring the model up to date with its data, code and parameters, unless a run is at it already.

    Args:
        dataset: What to train on. None: as in params.yaml; a value is written there, as for all of these.
        epochs: How often to go through the training images.
        batch_size: Images a step.
        learning_rate: Of stochastic gradient descent.
        seed: Of the order of the images and of the initial weights.
    """
    given = {key: value for key, value in locals().items() if value is not None}
    try:
        with project_lock.hold():
            leftover.end(leftover.TEMPORARY)
            runs = training.fn([f"{KEYS[key]}={value}" for key, value in given.items()])
    except StageFailed as failed:
        get_run_logger().error("%s\n%s", failed.reason, last_good.way_back(failed.stage))
        raise
    except ProjectLocked as locked:
        name: str | None = "Skipped"
        message = f"Skipped: {locked.holder} is at work"
    else:
        new = [f"{run.stage} {run.outcome}" for run in runs if run.outcome != "up to date"]
        name = None if new else "Nothing new"
        message = ", ".join(new) or "Nothing new: no data, code or parameter has changed"
    get_run_logger().info(message)
    return Completed(name=name, message=message)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.retraining", description=__doc__.splitlines()[0])
    when = parser.add_mutually_exclusive_group(required=True)
    when.add_argument("--cron", type=_cron, help='for example "0 3 * * *": every night at three, UTC')
    when.add_argument("--interval", type=_seconds, metavar="SECONDS")
    arguments = parser.parse_args()
    for number in STOPPED_BY:
        signal.signal(number, _stop)
    try:
        with (
            project_lock.hold(path=project_lock.SCHEDULE),
            server.at_hand() as url,
            _serving(url, arguments.cron or "", arguments.interval or 0) as process,
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


class Stopped(BaseException):
    """One of STOPPED_BY has arrived."""

    def __init__(self, number: int) -> None:
        self.number = number


def _stop(number: int, _: object) -> None:
    for other in STOPPED_BY:
        signal.signal(other, signal.SIG_IGN)  # once is enough
    raise Stopped(number)


@contextmanager
def _serving(url: str, cron: str, interval_s: int) -> Iterator[subprocess.Popen[bytes]]:
    """Serve the flow in a process of its own, which ends, with the runs it started, before the server does."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, cron, str(interval_s)],
        env={**os.environ, "PREFECT_API_URL": url},
        process_group=0,
    )
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
            for run in set(psutil.Process(process.pid).children()) - told:
                told.add(run)
                run.terminate()
        time.sleep(0.1)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def serve(cron: str, interval_s: int) -> None:
    """Start a run of `retraining` when the schedule says so, until SIGINT arrives."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    schedule = {"cron": cron} if cron else {"interval": interval_s}
    retraining.serve(name=_deployment(), print_starting_message=False, **schedule)


def _deployment() -> str:
    """Name the deployment after the checkout: several of them may be on one server."""
    folder = Path.cwd()
    return f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}"


def _end_with(parent: int) -> None:
    """Start no more runs once `parent`, which would end this process, was killed itself."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)


def _cron(text: str) -> str:
    with suppress(ValueError):
        if len(text.split()) == 5:  # Prefect takes a sixth, which is seconds
            return CronSchedule(cron=text).cron
    raise argparse.ArgumentTypeError(f'{text!r} is no cron expression; five fields are, for example "0 3 * * *"')


def _seconds(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return int(text)


if __name__ == "__main__":
    main()
