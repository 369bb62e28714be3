"""The training flow on a schedule.

Reads:  params.yaml, dvc.yaml
Writes: what the training flow writes, and .cache/logs/server.log
Run:    python -m flows retraining, see flows/runtime/schedule.py
"""

from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows import recipes
from flows.runtime import labels, last_good, project_lock, server
from flows.runtime.project_lock import ProjectLocked
from flows.training import training
from tasks.data import strangers
from tasks.dvc import StageFailed
from tasks.harness.errors import ParamsError, StageError
from tasks.harness.section import Seed
from tasks.params.download import DatasetName
from tasks.params.train import BatchSize, Epochs, LearningRate


@flow(name="retraining", flow_run_name=labels.run_name)
def retraining(
    dataset: DatasetName | None = None,
    epochs: Epochs | None = None,
    batch_size: BatchSize | None = None,
    learning_rate: LearningRate | None = None,
    seed: Seed | None = None,
) -> State[Any]:
    """Bring the model up to date with its data, code and parameters, unless a run is at it already.

    Args:
        dataset: What to train on, by its recipe. None: as in params.yaml; what is chosen is written there.
        epochs: How often to go through the training images.
        batch_size: Images a step.
        learning_rate: Of stochastic gradient descent.
        seed: Of the order of the images and of the initial weights.
    """
    labels.tag()  # now, because a run that is refused or skipped never gets to the training, which does so, too
    form = {
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "train.learning_rate": learning_rate,
        "train.seed": seed,
    }
    try:
        with project_lock.hold():
            strangers.check()
            server.end(server.TEMPORARY)  # of a run that was killed
            changes = recipes.for_dataset(dataset) if dataset else []
            runs = training.fn([*changes, *(f"{key}={value}" for key, value in form.items() if value is not None)])
    except StageFailed as failed:
        get_run_logger().error("%s\n%s", failed.reason, last_good.way_back(failed.stage))
        raise
    except (StageError, ParamsError) as refused:  # before a stage was asked for: the sentence is all there is to say
        get_run_logger().error(str(refused))
        return Failed(message=str(refused))
    except ProjectLocked as locked:
        name: str | None = "Skipped"
        message = f"Skipped: {locked.holder} is at work"
    else:
        new = [f"{run.stage} {run.outcome}" for run in runs if run.outcome != "up to date"]
        name = None if new else "Nothing new"
        message = ", ".join(new) or "Nothing new: no data, code or parameter has changed"
    get_run_logger().info(message)
    return Completed(name=name, message=message)
