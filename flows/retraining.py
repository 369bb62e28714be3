"""A night: train what was committed in a checkout of its own, judge the model, and put it into service or turn it down.

Reads:  what git has of the project, the images and weights of the person's tree, the registry
Writes: the registry; a branch retraining/...; .cache/retraining/
Run:    python -m flows retraining, see flows/runtime/schedule.py
"""

from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows import overrides, recipes
from flows.promote import Refused, promote
from flows.promotion import history, judgement
from flows.promotion.candidate import of_models
from flows.runtime import branches, labels, night, project_lock, server
from flows.runtime.clone import Clone
from flows.runtime.project_lock import ProjectLocked
from flows.training import training
from tasks.dvc import StageFailed, log_path
from tasks.harness.errors import ParamsError, StageError
from tasks.harness.section import Seed
from tasks.params import whole
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
    """Train what was committed, and put the model into service if it is better than the one that is there.

    Args:
        dataset: What to train on, by its recipe. None: as in params.yaml. All of these are of this run alone.
        epochs: How often to go through the training images.
        batch_size: Images a step.
        learning_rate: Of the optimiser, the highest.
        seed: Of the order of the images and of the initial weights.
    """
    labels.tag()  # now, because a run that is refused or skipped never gets to the training, which does so, too
    form = {
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "train.learning_rate": learning_rate,
        "train.seed": seed,
    }
    logger = get_run_logger()
    try:
        with project_lock.hold(path=project_lock.NIGHT):
            server.end(server.TEMPORARY)  # of a run that was killed
            if not_committed := night.edits():
                logger.warning(not_committed)
            with night.checkout() as checkout:
                changes = recipes.for_dataset(dataset) if dataset else []
                changes += [f"{key}={value}" for key, value in form.items() if value is not None]
                night.link(overrides.check(changes))
                training.fn(changes)
                name, message = judged(checkout, [not_committed] if not_committed else [])
    except StageFailed as failed:
        logger.error("%s\nlog: %s", failed.reason, night.KEPT / log_path(failed.stage).relative_to(".cache"))
        raise
    except (StageError, ParamsError) as refused:  # the sentence is all there is to say
        logger.error(str(refused))
        return Failed(message=str(refused))
    except ProjectLocked as locked:
        name, message = "Skipped", f"Skipped: {locked.holder} is at work"
    logger.info(message)
    return Completed(name=name, message=message)


def judged(checkout: Clone, remarks: list[str]) -> tuple[str, str]:
    """Judge the model of the checkout, the working directory, and act on it; return the state's name and message."""
    root, params, model = history.registry(), whole.load(), of_models().digest
    entries = history.read(root)
    champion = entries[-1].model if entries else None
    if champion == model:
        return "Nothing new", f"Nothing new: {model[: history.DIGITS]}, in service, is what would be trained"
    if earlier := judgement.before(root, model, champion):
        return "Nothing new", f"Nothing new: {model[: history.DIGITS]} was judged at {earlier.time[:16]} UTC"
    try:
        entry = promote(root, params, by=f"run {flow_run.name}", remarks=remarks)
    except Refused as refused:
        name, message = branches.REFUSED, str(refused)
    else:
        name, message = "Promoted", entry.line if entry else ""
    return name, f"{message}{published(checkout, name, model, params.retraining.keep_days)}"


def published(checkout: Clone, outcome: str, model: str, keep_days: int) -> str:
    """Keep what the run has changed as a branch, remove old ones, and say where it is: the model is judged already."""
    logger, home = get_run_logger(), night.home()
    try:
        for old in branches.prune(home, keep_days):
            logger.info("removed %s, which was refused more than %d days ago", old, keep_days)
        branch = branches.keep(checkout, home, outcome, model)
        remote = branches.push(home, branch) if branch else None
    except StageError as error:
        logger.error(str(error))
        return f"; its branch is not where it should be: {error}"
    return f"; branch {branch}{f', at {remote}, too' if remote else ''}" if branch else ""
