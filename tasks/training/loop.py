"""The training loop: cross-entropy, epoch by epoch, from a checkpoint where there is one."""

import sys
from collections.abc import Callable

from tqdm import tqdm

from tasks.harness.errors import StageError
from tasks.prepared import Split
from tasks.training.checkpoint import Checkpoint
from tasks.training.clock import Pace
from tasks.training.curve import LearningCurve
from tasks.training.state import Training
from tasks.training.transfer import train_mode

LINE_EVERY = 100  # batches, where there is no terminal for a progress bar


def fit(training: Training, validation: Split, curve: LearningCurve, checkpoint: Checkpoint) -> None:
    """Train until all epochs are done, the images in a new order each epoch.

    It ends before that when the time is up, or when `train.patience` is.

    Raises:
        StageError: the loss is no longer a finite number; a batch is too large for the memory; there is no time.
    """
    first = training.ranks.first
    if state := checkpoint.load():
        training.restore(state["training"])
        if first:
            curve.write(state["curve"])
            print(
                f"Going on after batch {training.batch} of epoch {training.epoch}, where a run was stopped", flush=True
            )
    elif training.clock.limit_s:
        if first:
            training.measure(validation)  # how long it takes is to be known before the first one has to end in time
        training.measure_progress()
        if training.over:
            raise StageError(
                f"train.max_minutes = {training.params.max_minutes:g} leaves no time to train: there is a validation "
                f"before and after it, and one of {len(validation.labels):,} images takes "
                f"{training.clock.validation_s:.0f} s"
            )
        training.pace = Pace(training.params.batch_size, training.step_number)

    def save() -> None:
        if first and training.between_steps:
            checkpoint.save_if_due(lambda: {"training": training.state(), "curve": curve.text})

    while True:
        if first:
            print(f"Epoch {training.epoch}/{training.params.epochs}", flush=True)
        train_loss = train_epoch(training, save)
        if first:
            validated = training.validate(validation)
            curve.add(validated, train_loss, training.rate)
            print(
                f"Validation: accuracy {validated.accuracy:.1%}, average loss {validated.loss:.6f}; "
                f"learning rate {training.rate:.3g}, {training.speed()}",
                flush=True,
            )
        training.measure_progress()  # the validation took its time
        if training.over or training.gives_up():
            return
        training.epoch += 1
        training.batch = 0
        training.total_loss.zero_()


def train_epoch(training: Training, save: Callable[[], None]) -> float:
    """Do what is left of this epoch, calling `save` after each step, and return the average loss of its images."""
    indices, first = training.indices, training.ranks.first
    seen = sum(map(indices.images, range(training.batch)))
    terminal = sys.stderr.isatty()
    train_mode(training.classifier)
    with tqdm(
        total=indices.size, initial=seen, unit=" images", unit_scale=True, leave=False, disable=not (terminal and first)
    ) as bar:
        for images, labels in training.rest_of_epoch():
            total = training.step(images, labels)
            training.total_loss += total
            done = indices.images(training.batch)
            seen += done
            bar.update(done)
            if training.batch % LINE_EVERY == 0:
                training.losses.look(training.ranks)
                loss = total.item() / max(indices.mine(training.batch), 1)
                if first and not terminal:
                    print(f"loss: {loss:>7f}  [{seen:>5d}/{indices.size:>5d}]", flush=True)
            training.advance()
            save()
            if training.over:
                break
    training.losses.look(training.ranks)
    return training.ranks.summed(training.total_loss).item() / seen
