"""Train the network on the prepared images.

Reads:  params.yaml (train), data/prepared/
Writes: models/model.pth, models/model.json, and, epoch by epoch, reports/learning_curve.csv
Run:    python -m tasks train
"""

import platform
from dataclasses import asdict

import numpy as np
import torch

from tasks.harness import section
from tasks.harness.errors import StageError
from tasks.harness.records import write_json
from tasks.harness.stage import stage
from tasks.model.classifier import JSON, PTH, Architecture, Description, Trained, build, digest, pth_bytes
from tasks.model.determinism import set_up
from tasks.params.train import Train, options
from tasks.prepared import Card, Split
from tasks.training.checkpoint import Checkpoint
from tasks.training.curve import LearningCurve
from tasks.training.loop import Training, fit


def main() -> None:
    with stage("train", reads=["data/prepared"], params=["train"], writes=[PTH, JSON]) as running:
        params = section.load(Train)
        device = set_up(params.threads, params.seed)
        print(f"Using {device} device, {torch.get_num_threads()} CPU threads", flush=True)
        card = Card.read()
        mean, std = normalization(card, params.normalize)
        architecture = Architecture(
            network=params.network,
            options=options(params),
            class_names=card.class_names,
            image_shape=card.image_shape,
            mean=mean,
            std=std,
            flip_at_test=params.flip_at_test,
        )
        classifier = build(architecture).to(device)
        print(classifier.network)
        print(f"{sum(parameter.numel() for parameter in classifier.parameters()):,} parameters", flush=True)

        training = Training(classifier, Split.read("train"), len(card.class_names), params, device)
        checkpoint = Checkpoint(running.inputs.digest(), device)
        fit(training, Split.read("validation"), LearningCurve(), checkpoint)

        state_dict = classifier.network.state_dict()
        description = Description(
            **vars(architecture),
            state_dict=digest(state_dict),
            dataset=Trained(card.name, card.sizes, card.sources, card.resize),
            training=params.model_dump(mode="json"),
            device=str(device),
            threads=torch.get_num_threads(),
            cpu_capability=torch.backends.cpu.get_cpu_capability(),
            versions={"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        )
        running.path(PTH).write_bytes(pth_bytes(state_dict))
        write_json(running.path(JSON), asdict(description))
    checkpoint.remove()
    print(f"Saved PyTorch model state to {PTH}")


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
