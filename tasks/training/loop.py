"""The training loop: cross-entropy and stochastic gradient descent, from a checkpoint where there is one."""

import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from tasks.harness.errors import StageError
from tasks.model.batches import BatchIndices, batches, predict
from tasks.model.classifier import Classifier
from tasks.params.train import Train
from tasks.prepared import Split
from tasks.training.checkpoint import Checkpoint, rng_state, set_rng_state
from tasks.training.curve import LearningCurve

VALIDATION_BATCH_SIZE = 1024
LINE_EVERY = 100  # batches, where there is no terminal for a progress bar


class Training:
    """A training as far as it has come: what is stepped, saved and restored together."""

    def __init__(self, classifier: Classifier, split: Split, params: Train, device: torch.device) -> None:
        self.classifier = classifier
        self.device = device
        self.learning_rate = params.learning_rate
        self.optimizer = torch.optim.SGD(classifier.parameters(), lr=params.learning_rate)
        self.generator = torch.Generator().manual_seed(params.seed)
        self.order = self.generator.get_state()  # before it shuffled for this epoch
        self.indices = BatchIndices(len(split.labels), params.batch_size, self.generator)
        self.loader = batches(split, self.indices, device)
        self.epoch = 1
        self.batch = 0  # how many of this epoch are done
        self.total_loss = torch.zeros((), device=device)  # over the images of this epoch so far
        self._rng: dict[str, Tensor] | None = None  # to be set before the next step

    def state(self) -> dict[str, Any]:
        """Return all that decides the steps to come, as tensors and plain types."""
        return {
            "network": self.classifier.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order,
            "epoch": self.epoch,
            "batch": self.batch,
            "total_loss": self.total_loss,
            "rng": rng_state(self.device),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state` returned; the next step is the one that followed it."""
        self.classifier.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["order"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.total_loss = state["total_loss"].to(self.device)
        self._rng = state["rng"]

    def rest_of_epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of this epoch that are not done yet, on the device."""
        self.order = self.generator.get_state()
        self.indices.first = self.batch
        loader = iter(self.loader)
        if self._rng is not None:  # only now: the loader has drawn a seed for its workers
            set_rng_state(self._rng, self.device)
            self._rng = None
        for images, labels in loader:
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


def fit(training: Training, validation: Split, epochs: int, curve: LearningCurve, checkpoint: Checkpoint) -> None:
    """Train in place until `epochs` are done: cross-entropy, the images in a new order each epoch.

    Raises:
        StageError: the loss is no longer a finite number.
    """
    if state := checkpoint.load():
        training.restore(state["training"])
        curve.write(state["curve"])
        print(f"Going on after batch {training.batch} of epoch {training.epoch}, where a run was stopped", flush=True)
    while training.epoch <= epochs:
        print(f"Epoch {training.epoch}/{epochs}", flush=True)
        save = partial(checkpoint.save_if_due, lambda: {"training": training.state(), "curve": curve.text})
        train_loss = train_epoch(training, save)
        logits = predict(training.classifier, validation, VALIDATION_BATCH_SIZE, training.device)
        labels = torch.from_numpy(validation.labels)
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        validation_loss = _finite(cross_entropy(logits, labels).item(), training.learning_rate)
        curve.add(training.epoch, train_loss, validation_loss, accuracy)
        print(f"Validation: accuracy {accuracy:.1%}, average loss {validation_loss:.6f}", flush=True)
        training.epoch += 1


def train_epoch(training: Training, save: Callable[[], None]) -> float:
    """Do what is left of this epoch, calling `save` after each step, and return the average loss of its images."""
    loss_fn = nn.CrossEntropyLoss()
    size = training.indices.size
    seen = training.batch * training.indices.batch_size
    terminal = sys.stderr.isatty()
    training.classifier.train()
    with tqdm(total=size, initial=seen, unit=" images", unit_scale=True, leave=False, disable=not terminal) as bar:
        for images, labels in training.rest_of_epoch():
            loss = loss_fn(training.classifier(images), labels)
            loss.backward()
            training.optimizer.step()
            training.optimizer.zero_grad()

            training.total_loss += loss.detach() * len(labels)
            seen += len(labels)
            bar.update(len(labels))
            if training.batch % LINE_EVERY == 0:
                _finite(loss.item(), training.learning_rate)
                if not terminal:
                    print(f"loss: {loss.item():>7f}  [{seen:>5d}/{size:>5d}]", flush=True)
            training.batch += 1
            save()
    average = _finite(training.total_loss.item(), training.learning_rate) / size
    training.batch = 0
    training.total_loss.zero_()
    return average


def _finite(loss: float, learning_rate: float) -> float:
    if not math.isfinite(loss):
        raise StageError(f"the loss is {loss}: train.learning_rate = {learning_rate} is too high for this network")
    return loss
