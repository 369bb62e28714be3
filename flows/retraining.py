"""The training flow on a schedule.

Reads:  params.yaml, dvc.yaml
Writes: what the training flow writes, and .cache/logs/server.log
Run:    python -m flows retraining --cron "0 3 * * *"
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.server.schemas.schedules import CronSchedule
from prefect.states import Completed

from flows.runtime import last_good, project_lock, schedule, server
from flows.runtime.project_lock import ProjectLocked
from flows.training import training
from tasks.dvc import StageFailed
from tasks.harness.section import Seed
from tasks.params.download import DatasetName
from tasks.params.train import BatchSize, Epochs, LearningRate


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
    form = {
        "download.dataset": dataset,
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "train.learning_rate": learning_rate,
        "train.seed": seed,
    }
    try:
        with project_lock.hold():
            server.end(server.TEMPORARY)  # of a run that was killed
            runs = training.fn([f"{key}={value}" for key, value in form.items() if value is not None])
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m flows retraining", description=__doc__.splitlines()[0])
    when = parser.add_mutually_exclusive_group()
    when.add_argument(
        "--cron",
        type=_cron,
        default=os.environ.get("CRON") or None,
        help='for example "0 3 * * *": every night at three, UTC (default: CRON of the environment)',
    )
    when.add_argument("--interval", type=_seconds, metavar="SECONDS")
    options = parser.parse_args(arguments)
    if options.interval:
        options.cron = None
    elif not options.cron:
        parser.error('when? make schedule CRON="0 3 * * *"')
    schedule.run([sys.executable, "-m", "flows.serve", options.cron or "", str(options.interval or 0)])


def _cron(text: str) -> str:
    try:
        if len(text.split()) != 5:  # Prefect takes a sixth, which is seconds
            raise ValueError
        schedule = CronSchedule(cron=text)
    except ValueError:
        wanted = 'no cron expression; five fields are, for example "0 3 * * *"'
        raise argparse.ArgumentTypeError(f"{text!r} is {wanted}") from None
    try:
        asyncio.run(schedule.get_dates(1))  # as the server will ask for them, and find none, without a word
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} never comes due: no such date exists") from None
    return text


def _seconds(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return int(text)


if __name__ == "__main__":
    main()
