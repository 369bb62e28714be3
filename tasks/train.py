"""Train the network on the prepared images.

Reads:  params.yaml (train), data/prepared/
Writes: models/model.pth, models/model.json, reports/training.json, and, epoch by epoch, reports/learning_curve.csv
Run:    python -m tasks train, or torchrun --nproc-per-node=2 -m tasks train, as it does itself by train.devices
"""

import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from tasks.harness import section
from tasks.harness.errors import StageError
from tasks.harness.records import write_json
from tasks.harness.stage import Stage, stage
from tasks.model.affinity import apart
from tasks.model.classifier import JSON, PTH, Architecture, Description, Trained, build, digest, pth_bytes
from tasks.model.determinism import set_up
from tasks.networks.cnn import PATCHES_OF
from tasks.networks.from_timm import PREFIX
from tasks.params.train import Train, options
from tasks.prepared import Card, Split
from tasks.training import memory, precision, transfer
from tasks.training.checkpoint import Checkpoint
from tasks.training.curve import LearningCurve
from tasks.training.loop import fit
from tasks.training.ranks import Ranks, start, to_be_started
from tasks.training.record import TRAINING, USAGE
from tasks.training.state import Training
from tasks.training.transfer import Weights


def main() -> None:
    with stage("train", reads=["data/prepared"], params=["train"], writes=[]):
        if to_be_started(devices := section.load(Train).devices):
            start(devices)
            return
    ranks = Ranks.of_this_process()
    outputs = [PTH, JSON, TRAINING] if ranks.first else []
    with stage("train", reads=["data/prepared"], params=["train"], writes=outputs) as running:
        params = section.load(Train)
        device = ranks.device(set_up(params.threads or ranks.threads(), params.seed))
        if ranks.first:
            print(f"Using {device} device, {torch.get_num_threads()} CPU threads", flush=True)
        card = Card.read()
        weights = transfer.read(params)
        architecture = describe(card, params, weights)
        checkpoint = Checkpoint(key(running.inputs.digest(), params, device), device, ranks.size)
        with ranks.joined(device), apart(device):
            training = train(architecture, params, weights, device, ranks, checkpoint)
        if ranks.first:
            write(running, training, architecture, card)
    if ranks.first:
        checkpoint.remove()
        usage = training.usage()
        Path(USAGE).parent.mkdir(exist_ok=True)
        write_json(Path(USAGE), asdict(usage))
        print(usage)
        print(f"Saved PyTorch model state to {PTH}")


def describe(card: Card, params: Train, weights: Weights | None) -> Architecture:
    """Say what the classifier is to be built from."""
    if params.normalize == "pretrained" and weights:
        mean, std = transfer.statistics(weights, params.network, len(card.mean))
    else:
        mean, std = normalization(card, params.normalize)
    return Architecture(
        network=params.network,
        options=options(params),
        class_names=card.class_names,
        image_shape=card.image_shape,
        mean=mean,
        std=std,
        flip_at_test=params.flip_at_test,
    )


def train(
    architecture: Architecture,
    params: Train,
    weights: Weights | None,
    device: torch.device,
    ranks: Ranks,
    checkpoint: Checkpoint,
) -> Training:
    """Build the classifier and train it."""
    try:
        with memory.holding("the network: choose a smaller train.network", device):
            classifier = build(architecture).to(device)
    except ValueError as error:
        raise StageError(f"train.{architecture.network}: {error}") from None
    if ranks.first:
        print(classifier.network)
        print(f"{sum(parameter.numel() for parameter in classifier.parameters()):,} parameters", flush=True)
    split = Split.read("train")
    if weights is None:
        classifier.look_at(torch.from_numpy(split.images[:PATCHES_OF]).to(device))
    else:
        new = transfer.begin_with(classifier.network, weights)
        if ranks.first:
            print(f"Beginning with {weights.path}; {', '.join(new) or 'nothing'} begins anew", flush=True)
    if params.transfer.freeze == "backbone":
        transfer.freeze_backbone(classifier.network)
    with memory.holding("what its training takes: choose a smaller train.network, or train.batch_size", device):
        training = Training(classifier, split, len(architecture.class_names), params, device, ranks)
        fit(training, Split.read("validation"), LearningCurve(ranks.first), checkpoint)
    return training


def write(running: Stage, training: Training, architecture: Architecture, card: Card) -> None:
    """Write the outputs of the stage."""
    state_dict = training.result()
    description = Description(
        **vars(architecture),
        state_dict=digest(state_dict),
        dataset=Trained(card.name, card.sizes, card.sources, card.resize),
        training=training.params.model_dump(mode="json"),
        precision=str(training.dtype).removeprefix("torch."),
        device=str(training.device),
        processes=training.ranks.size,
        threads=torch.get_num_threads(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        versions=versions(architecture.network),
    )
    running.path(PTH).write_bytes(pth_bytes(state_dict))
    write_json(running.path(TRAINING), asdict(training.epochs()))
    write_json(running.path(JSON), asdict(description))


def key(inputs: str, params: Train, device: torch.device) -> str:
    """Say what a checkpoint has to be of: the digest of the inputs, versions, and the precision that was chosen."""
    return repr((inputs, versions(params.network), precision.resolve(params.precision, device)))


def versions(network: str) -> dict[str, str]:
    """Return the versions of what decides the weights."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return found | {"timm": version("timm")} if network.startswith(PREFIX) else found


def normalization(card: Card, normalize: str) -> tuple[list[float], list[float]]:
    """Return what is subtracted from pixels in [0, 1] and what they are divided by then, per channel.

    Raises:
        StageError: they cannot be, because all training images have the same pixels in a channel.
    """
    channels = len(card.mean)
    if normalize == "fitted" and not all(card.std):
        raise StageError(
            f"train.normalize = fitted: the standard deviations of the channels are {card.std}, and none may be 0; "
            "choose none or half, or other images"
        )
    return {
        "none": ([0.0] * channels, [1.0] * channels),
        "half": ([0.5] * channels, [0.5] * channels),
        "fitted": (card.mean, card.std),
    }[normalize]


if __name__ == "__main__":
    raise SystemExit("the stages have one door: python -m tasks train")
