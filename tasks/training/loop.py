"""The training loop: cross-entropy, step by step, from a checkpoint where there is one."""

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
from tasks.training.augmentation import augment
from tasks.training.checkpoint import Checkpoint, rng_state, set_rng_state
from tasks.training.curve import LearningCurve
from tasks.training.optimizers import learning_rate, optimizer

VALIDATION_BATCH_SIZE = 1024
LINE_EVERY = 100  # batches, where there is no terminal for a progress bar


class Training:
    """A training as far as it has come: what is stepped, saved and restored together."""

    def __init__(self, classifier: Classifier, split: Split, classes: int, params: Train, device: torch.device) -> None:
        self.classifier = classifier
        self.classes = classes
        self.params = params
        self.device = device
        self.loss = nn.CrossEntropyLoss(label_smoothing=params.label_smoothing)
        self.optimizer = optimizer(classifier.network, params)
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

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Learn from a batch, `uint8 [N, H, W, C]` and `int64 [N]`, and return its average loss."""
        done = (self.epoch - 1) * len(self.indices) + self.batch
        rate = learning_rate(done, self.params.epochs * len(self.indices), self.params)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images, targets = augment(images, labels, self.params.augment, self.classes)
        loss: Tensor = self.loss(self.classifier(images), targets)
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        if self.params.clip_norm:
            nn.utils.clip_grad_norm_(self.classifier.parameters(), self.params.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def finite(self, loss: float, batch: int) -> float:
        """Return the loss, having seen that it is a number with which the training can go on.

        Args:
            batch: after which of this epoch, the first being 1.

        Raises:
            StageError: it is none.
        """
        if not math.isfinite(loss):
            raise StageError(
                f"the loss is {loss} after batch {batch} of epoch {self.epoch}, with the learning rate "
                f"{self.optimizer.param_groups[0]['lr']:.3g}: try a lower train.learning_rate = "
                f"{self.params.learning_rate}, a warm-up (train.warm_up), or train.clip_norm: 1"
            )
        return loss


def fit(training: Training, validation: Split, curve: LearningCurve, checkpoint: Checkpoint) -> None:
    """Train in place until all epochs are done, the images in a new order each epoch.

    Raises:
        StageError: the loss is no longer a finite number.
    """
    if state := checkpoint.load():
        training.restore(state["training"])
        curve.write(state["curve"])
        print(f"Going on after batch {training.batch} of epoch {training.epoch}, where a run was stopped", flush=True)
    epochs = training.params.epochs
    while training.epoch <= epochs:
        print(f"Epoch {training.epoch}/{epochs}", flush=True)
        save = partial(checkpoint.save_if_due, lambda: {"training": training.state(), "curve": curve.text})
        train_loss = train_epoch(training, save)
        logits = predict(training.classifier, validation, VALIDATION_BATCH_SIZE, training.device)
        labels = torch.from_numpy(validation.labels)
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        validation_loss = training.finite(cross_entropy(logits, labels).item(), len(training.indices))
        curve.add(training.epoch, train_loss, validation_loss, accuracy)
        print(f"Validation: accuracy {accuracy:.1%}, average loss {validation_loss:.6f}", flush=True)
        training.epoch += 1


def train_epoch(training: Training, save: Callable[[], None]) -> float:
    """Do what is left of this epoch, calling `save` after each step, and return the average loss of its images."""
    size = training.indices.size
    seen = training.batch * training.indices.batch_size
    terminal = sys.stderr.isatty()
    training.classifier.train()
    with tqdm(total=size, initial=seen, unit=" images", unit_scale=True, leave=False, disable=not terminal) as bar:
        for images, labels in training.rest_of_epoch():
            loss = training.step(images, labels)
            training.total_loss += loss * len(labels)
            seen += len(labels)
            bar.update(len(labels))
            if training.batch % LINE_EVERY == 0:
                training.finite(loss.item(), training.batch + 1)
                if not terminal:
                    print(f"loss: {loss.item():>7f}  [{seen:>5d}/{size:>5d}]", flush=True)
            training.batch += 1
            save()
    average = training.finite(training.total_loss.item(), training.batch) / size
    training.batch = 0
    training.total_loss.zero_()
    return average
