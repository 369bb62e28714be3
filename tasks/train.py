"""Train the network on the prepared images.

Reads:  params.yaml (train), data/prepared/
Writes: models/model.pth, models/model.json, and, epoch by epoch, reports/learning_curve.csv
Run:    python -m tasks.train
"""

import math
import platform
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from tqdm import tqdm

from tasks import params
from tasks.batches import batches, predict
from tasks.classifier import JSON, PTH, Classifier, Description, build, digest, pth_bytes
from tasks.determinism import set_up
from tasks.prepared import Card, Split
from tasks.stage import StageError, stage, write_json

NETWORK = "NeuralNetwork"
VALIDATION_BATCH_SIZE = 1024
LINE_EVERY = 100  # batches, where there is no terminal for a progress bar


def main() -> None:
    with stage("train", PTH, JSON) as staged:
        p = params.load().train
        device = set_up(p.threads, p.seed)
        print(f"Using {device} device, {torch.get_num_threads()} CPU threads", flush=True)
        card = Card.read()
        mean, std = (card.mean, card.std) if p.normalize else ([0.0] * len(card.mean), [1.0] * len(card.std))
        classifier = build(NETWORK, card.image_shape, card.class_names, mean, std).to(device)
        print(classifier.network)
        print(f"{sum(parameter.numel() for parameter in classifier.parameters()):,} parameters", flush=True)

        fit(classifier, Split.read("train"), Split.read("validation"), p, device, LearningCurve())

        state_dict = classifier.network.state_dict()
        description = Description(
            network=NETWORK,
            class_names=card.class_names,
            image_shape=card.image_shape,
            mean=mean,
            std=std,
            state_dict=digest(state_dict),
            dataset={"name": card.name, "sizes": card.sizes, "sources": card.sources},
            training=p.model_dump(),
            device=str(device),
            threads=torch.get_num_threads(),
            cpu_capability=torch.backends.cpu.get_cpu_capability(),
            versions={"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        )
        staged(PTH).write_bytes(pth_bytes(state_dict))
        write_json(staged(JSON), asdict(description))
    print(f"Saved PyTorch model state to {PTH}")


class LearningCurve:
    """reports/learning_curve.csv, a row an epoch; written as the run goes, so that `dvc plots show` can follow it."""

    def __init__(self) -> None:
        self.path = Path("reports/learning_curve.csv")
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text("epoch,train_loss,validation_loss,validation_accuracy\n")

    def add(self, epoch: int, train_loss: float, validation_loss: float, validation_accuracy: float) -> None:
        with self.path.open("a") as file:
            file.write(f"{epoch},{train_loss:.6f},{validation_loss:.6f},{validation_accuracy:.6f}\n")


def fit(
    classifier: Classifier,
    training: Split,
    validation: Split,
    p: params.Train,
    device: torch.device,
    curve: LearningCurve,
) -> None:
    """Train `classifier` in place: cross-entropy, stochastic gradient descent, the images in a new order each epoch.

    Raises:
        StageError: the loss is no longer a finite number.
    """
    loader = batches(training, p.batch_size, device, shuffle=torch.Generator().manual_seed(p.seed))
    optimizer = torch.optim.SGD(classifier.parameters(), lr=p.learning_rate)
    for epoch in range(1, p.epochs + 1):
        print(f"Epoch {epoch}/{p.epochs}", flush=True)
        train_loss = train_epoch(classifier, loader, optimizer, device, len(training.labels))
        logits = predict(classifier, validation, VALIDATION_BATCH_SIZE, device)
        labels = torch.from_numpy(validation.labels)
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        validation_loss = _finite(cross_entropy(logits, labels).item(), p.learning_rate)
        curve.add(epoch, train_loss, validation_loss, accuracy)
        print(f"Validation: accuracy {accuracy:.1%}, average loss {validation_loss:.6f}", flush=True)


def train_epoch(
    classifier: Classifier,
    loader: DataLoader[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    size: int,
) -> float:
    """Go once through the `size` images of `loader` and return their average loss."""
    loss_fn = nn.CrossEntropyLoss()
    total = torch.zeros((), device=device)
    seen = 0
    classifier.train()
    with tqdm(total=size, unit=" images", unit_scale=True, leave=False, disable=not sys.stderr.isatty()) as bar:
        for batch, (images, labels) in enumerate(loader):
            logits = classifier(images.to(device, non_blocking=True))
            labels = labels.to(device, non_blocking=True)
            loss = loss_fn(logits, labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

            total += loss.detach() * len(labels)
            seen += len(labels)
            bar.update(len(labels))
            if batch % LINE_EVERY == 0:
                _finite(loss.item(), optimizer.param_groups[0]["lr"])
                if bar.disable:
                    print(f"loss: {loss.item():>7f}  [{seen:>5d}/{size:>5d}]", flush=True)
    return _finite(total.item(), optimizer.param_groups[0]["lr"]) / size


def _finite(loss: float, learning_rate: float) -> float:
    if not math.isfinite(loss):
        raise StageError(f"the loss is {loss}: train.learning_rate = {learning_rate} is too high for this network")
    return loss


if __name__ == "__main__":
    main()
