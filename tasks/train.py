"""Train the network on the prepared images.

Reads:  params.yaml (train), data/prepared/
Writes: models/model.pth, models/model.json, and, epoch by epoch, reports/learning_curve.csv
Run:    python -m tasks.train
"""

import math
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from tasks import params
from tasks.batches import BatchIndices, batches, predict
from tasks.checkpoint import Checkpoint, rng_state, set_rng_state
from tasks.classifier import JSON, PTH, Classifier, Description, build, digest, pth_bytes
from tasks.determinism import set_up
from tasks.prepared import Card, Split
from tasks.stage import StageError, run, stage, write_json

NETWORK = "NeuralNetwork"
VALIDATION_BATCH_SIZE = 1024
LINE_EVERY = 100  # batches, where there is no terminal for a progress bar


def main() -> None:
    with stage("train", reads=["data/prepared"], params=["train"], writes=[PTH, JSON]) as running:
        p = params.load().train
        device = set_up(p.threads, p.seed)
        print(f"Using {device} device, {torch.get_num_threads()} CPU threads", flush=True)
        card = Card.read()
        mean, std = normalization(card, p.normalize)
        classifier = build(NETWORK, card.image_shape, card.class_names, mean, std).to(device)
        print(classifier.network)
        print(f"{sum(parameter.numel() for parameter in classifier.parameters()):,} parameters", flush=True)

        training = Training(classifier, Split.read("train"), p, device)
        checkpoint = Checkpoint(running.inputs.digest(), device)
        fit(training, Split.read("validation"), p.epochs, LearningCurve(), checkpoint)

        state_dict = classifier.network.state_dict()
        description = Description(
            network=NETWORK,
            class_names=card.class_names,
            image_shape=card.image_shape,
            mean=mean,
            std=std,
            state_dict=digest(state_dict),
            dataset={"name": card.name, "sizes": card.sizes, "sources": card.sources, "resize": card.resize},
            training=p.model_dump(),
            device=str(device),
            threads=torch.get_num_threads(),
            cpu_capability=torch.backends.cpu.get_cpu_capability(),
            versions={"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        )
        running.path(PTH).write_bytes(pth_bytes(state_dict))
        write_json(running.path(JSON), asdict(description))
    Checkpoint.clear()
    print(f"Saved PyTorch model state to {PTH}")


def normalization(card: Card, normalize: str) -> tuple[list[float], list[float]]:
    """Return what is subtracted from pixels in [0, 1] and what they are divided by then, per channel."""
    channels = len(card.mean)
    return {
        "none": ([0.0] * channels, [1.0] * channels),
        "half": ([0.5] * channels, [0.5] * channels),
        "fitted": (card.mean, card.std),
    }[normalize]


class LearningCurve:
    """reports/learning_curve.csv, a row an epoch; written as the run goes, so that `dvc plots show` can follow it."""

    def __init__(self) -> None:
        self.path = Path("reports/learning_curve.csv")
        self.path.parent.mkdir(exist_ok=True)
        self.write("epoch,train_loss,validation_loss,validation_accuracy\n")

    def add(self, epoch: int, train_loss: float, validation_loss: float, validation_accuracy: float) -> None:
        self.write(f"{self.text}{epoch},{train_loss:.6f},{validation_loss:.6f},{validation_accuracy:.6f}\n")

    def write(self, text: str) -> None:
        self.text = text
        self.path.write_text(text)


class Training:
    """A training as far as it has come: what is stepped, saved and restored together."""

    def __init__(self, classifier: Classifier, split: Split, p: params.Train, device: torch.device) -> None:
        self.classifier = classifier
        self.device = device
        self.learning_rate = p.learning_rate
        self.optimizer = torch.optim.SGD(classifier.parameters(), lr=p.learning_rate)
        self.generator = torch.Generator().manual_seed(p.seed)
        self.order = self.generator.get_state()  # before it shuffled for this epoch
        self.indices = BatchIndices(len(split.labels), p.batch_size, self.generator)
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


if __name__ == "__main__":
    run(main)
