"""The training loop against the bare loop, epoch by epoch in turn, in images per second.

The bare loop is the limit: float tensors that lie in memory already, sequential slices, the same network and optimiser.

Reads:  params.yaml, data/prepared/
Run:    python -m benchmarks.training_loop EPOCHS
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from tasks.harness import section
from tasks.harness.inputs import Inputs
from tasks.model.classifier import Architecture, build
from tasks.model.determinism import set_up
from tasks.networks.mlp import NeuralNetwork
from tasks.params.train import Train
from tasks.prepared import Card, Split
from tasks.training.checkpoint import Checkpoint
from tasks.training.loop import train_epoch
from tasks.training.state import Training


def main() -> None:
    params = section.load(Train)
    device = set_up(params.threads, params.seed)
    card, split = Card.read(), Split.read("train")
    quickstarts = Architecture("mlp", {}, card.class_names, card.image_shape, [0.0], [1.0], flip_at_test=False)
    classifier = build(quickstarts).to(device)
    training = Training(classifier, split, len(card.class_names), params, device)
    checkpoint = Checkpoint(Inputs(["data/prepared"], ["train"]).digest(), device)
    save = partial(checkpoint.save_if_due, lambda: {"training": training.state(), "curve": ""})

    height, width, channels = card.image_shape
    images = torch.from_numpy(split.images).permute(0, 3, 1, 2).float().div(255).to(device)
    labels = torch.from_numpy(split.labels).to(device)
    network = NeuralNetwork((height, width, channels), len(card.class_names)).to(device)
    bare = partial(bare_epoch, network, images, labels, params.batch_size, params.learning_rate)

    ours = partial(first_epoch, training, save)
    ours(), bare()  # neither's first epoch counts
    pairs = []
    for _ in range(int(sys.argv[1])):
        seconds = {}
        for name, epoch in (("ours", ours), ("bare", bare)):
            started = time.perf_counter()
            epoch()
            seconds[name] = time.perf_counter() - started
        pairs.append((len(labels) / seconds["ours"], len(labels) / seconds["bare"]))
    checkpoint.remove()
    print(json.dumps(pairs))


def first_epoch(training: Training, save: Callable[[], None]) -> None:
    """Do an epoch as if it were the first one, whatever came before: after the last one there is none."""
    training.epoch, training.batch, training.progress = 1, 0, 0.0
    train_epoch(training, save)
    if training.batch != len(training.indices):
        sys.exit(f"{training.batch} batches instead of {len(training.indices)}")


def bare_epoch(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, batch_size: int, learning_rate: float
) -> float:
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate)
    network.train()
    loss = torch.zeros(())
    for start in range(0, len(labels), batch_size):
        loss = loss_fn(network(images[start : start + batch_size]), labels[start : start + batch_size])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()  # on a GPU it waits for the work to be done


if __name__ == "__main__":
    main()
