"""A trained classifier and its two files.

models/model.pth    the network's state_dict, for `torch.load(..., weights_only=True)`
models/model.json   `Description`: what rebuilds the network around it, and what it was trained on
"""

import hashlib
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from tasks.harness.errors import StageError, shown
from tasks.harness.records import read_record
from tasks.networks import table
from tasks.networks.cnn import Cnn
from tasks.networks.from_timm import NetworkError
from tasks.prepared import ClassNames, ImageShape, PerChannel, SplitName

FOLDER = Path("models")
PTH = "models/model.pth"
JSON = "models/model.json"


def _known(network: str) -> str:
    if not table.known(network):
        raise ValueError(f"should be one of {', '.join(table.NETWORKS)}, or a network of timm, such as timm/resnet18")
    return network


@dataclass(frozen=True)
class Trained:
    """What of data/prepared/dataset.json a model.json repeats."""

    name: str
    sizes: dict[SplitName, int]
    sources: dict[str, str]
    resize: Literal["stretch", "crop"]


@dataclass(frozen=True)
class Architecture:
    """What rebuilds a classifier, but for its weights."""

    network: Annotated[str, AfterValidator(_known)]
    options: dict[str, Any]  # of the network
    class_names: ClassNames
    image_shape: ImageShape
    mean: PerChannel  # images are scaled to [0, 1], then (x - mean) / std
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    flip_at_test: bool  # the logits are the mean of those of an image and of its mirror image


@dataclass(frozen=True)
class Description(Architecture):
    """The contents of model.json."""

    state_dict: str  # "sha256:..." over its tensors
    dataset: Trained
    training: dict[str, Any]  # the section `train` of params.yaml
    precision: str  # of its steps
    device: str
    processes: int  # that shared each batch
    threads: int
    cpu_capability: str  # the vector instructions that torch uses
    versions: dict[str, str]


class Classifier(nn.Module):
    """Raw images `uint8 [N, H, W, C]` in, logits `float32 [N, classes]` out: preprocessing and a network.

    Args:
        mean: per channel, as `std`: images are scaled to [0, 1], then (x - mean) / std.
        flip_at_test: give the mean of the logits of an image and of its mirror image in evaluation mode.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: list[float], std: list[float], flip_at_test: bool = False) -> None:
        super().__init__()
        self.network = network
        self.flip_at_test = flip_at_test
        self.normalizes = any(mean) or any(value != 1 for value in std)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def preprocess(self, images: Tensor) -> Tensor:
        """Make of raw images what the network takes, `float32 [N, C, H, W]`."""
        x = images.permute(0, 3, 1, 2).float() / 255
        return (x - self.mean) / self.std if self.normalizes else x

    def look_at(self, images: Tensor) -> None:
        """Show the network training images before its first step, if it takes initial weights from them."""
        if isinstance(self.network, Cnn):
            self.network.look_at(self.preprocess(images))

    def forward(self, images: Tensor) -> Tensor:
        x = self.preprocess(images)
        logits: Tensor = self.network(x)
        if self.flip_at_test and not self.training:
            logits = (logits + self.network(x.flip(3))) / 2
        return logits


def build(of: Architecture) -> Classifier:
    """Build the classifier with the initial weights that torch's random generator gives."""
    height, width, channels = of.image_shape
    try:
        network = table.network(of.network)((height, width, channels), len(of.class_names), **of.options)
    except NetworkError as error:
        raise StageError(str(error)) from None
    # Raw images lie in memory channels last, and convolutions are faster where the weights do, too.
    return Classifier(network.to(memory_format=torch.channels_last), of.mean, of.std, of.flip_at_test)


def digest(state_dict: dict[str, Tensor]) -> str:
    """Hash names, dtypes, shapes and values, whatever file they lie in."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(state_dict.items()):
        sha256.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha256.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return f"sha256:{sha256.hexdigest()}"


def pth_bytes(state_dict: dict[str, Tensor]) -> bytes:
    """Serialise; a buffer, because `torch.save` writes the name of the file it is given into the bytes."""
    buffer = io.BytesIO()
    torch.save({name: tensor.cpu().contiguous() for name, tensor in state_dict.items()}, buffer)
    return buffer.getvalue()


def load(folder: Path = FOLDER) -> tuple[Classifier, Description]:
    """Rebuild the classifier from model.pth and model.json in `folder`, in evaluation mode on the CPU.

    Raises:
        StageError: model.json describes no classifier; model.pth is no plain state_dict, does not fit the network, or
            is not the one that model.json describes.
    """
    pth, described = folder / Path(PTH).name, folder / Path(JSON).name
    description = read_record(described, Description)
    channels = description.image_shape[2]
    if not len(description.mean) == len(description.std) == channels:
        raise StageError(
            f"{described} is refused: mean = {shown(description.mean)} and std = {shown(description.std)} should have "
            f"a number for each of the {channels} channels in image_shape; run dvc repro"
        )
    try:
        state_dict = torch.load(pth, map_location="cpu", weights_only=True)
        with torch.device("meta"):  # that they fit is seen before anything as large as model.json says is allocated
            build(description).network.load_state_dict(state_dict, assign=True)
        classifier = build(description)
        classifier.network.load_state_dict(state_dict)
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, ValueError, AttributeError) as error:
        raise StageError(
            f"{pth} is not a state_dict of {description.network}; no code in it was run. Train again, or bring back "
            f"the last good one with dvc checkout {pth} {described}. torch says: {str(error).partition(chr(10))[0]}"
        ) from None
    if (found := digest(state_dict)) != description.state_dict:
        raise StageError(
            f"{pth} holds the weights {found}, {described} describes {description.state_dict}: one was changed after "
            f"training. Train again, or bring back the last good ones with dvc checkout {pth} {described}"
        )
    return classifier.eval(), description
