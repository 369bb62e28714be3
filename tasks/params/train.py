"""The section `train` of params.yaml."""

import re
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from tasks.harness.section import Section, Seed

Epochs = Annotated[int, Field(ge=1, le=10_000)]
Accumulate = Annotated[int, Field(ge=1, le=4096)]
BatchSize = Annotated[int, Field(ge=1, le=65536)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
Channels = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(strict=False, min_length=1, max_length=16)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Alpha = Annotated[float, Field(ge=0, le=10)]  # of a beta distribution; 0: without
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Pixels = Annotated[int, Field(ge=0, le=4096)]


OWN = ("mlp", "cnn")  # the networks of this project, each with a section of its name


def _network(name: str) -> str:
    # Which names timm knows is seen when the network is built: to import it takes seconds.
    if name not in OWN and not re.fullmatch(r"timm/[a-z0-9_]+(\.[a-z0-9_]+)?", name):
        raise ValueError(f"should be one of {', '.join(OWN)}, or a network of timm, such as timm/resnet18")
    return name


def _weights(name: str) -> str:
    if name != "hub" and PurePath(name).suffix not in (".pth", ".safetensors"):
        raise ValueError("should be null, hub, or the path of a .pth or .safetensors file")
    if PurePath(name) == PurePath("models/model.pth"):
        raise ValueError("should be a copy elsewhere: DVC removes models/model.pth before it trains")
    return name


class Mlp(Section):
    final_relu: bool


class Cnn(Section):
    channels: Channels
    stride: int = Field(ge=1, le=2)
    convolutions: int = Field(ge=1, le=16)
    whitening: int = Field(ge=0, le=5)


class Timm(Section):
    stem: Literal["small", "as_built"]
    drop_rate: Fraction
    drop_path_rate: Fraction


class Transfer(Section):
    weights: Annotated[str, Field(min_length=1), AfterValidator(_weights)] | None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    freeze: Literal["none", "backbone"]
    backbone_rate: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _freezes_what_was_trained(self) -> "Transfer":
        if self.freeze == "backbone" and self.weights is None:
            raise ValueError("freeze: backbone should come with weights: random ones would stay random")
        return self


class Augment(Section):
    flip: bool
    shift: Pixels
    cutout: Pixels
    color: Annotated[float, Field(ge=0, le=1)]
    mixup: Alpha
    cutmix: Alpha

    @model_validator(mode="after")
    def _mixes_one_way(self) -> "Augment":
        if self.mixup and self.cutmix:
            raise ValueError("mixup and cutmix should not both be above 0: an image is mixed in one way")
        return self


class Train(Section):
    network: Annotated[str, AfterValidator(_network)]
    mlp: Mlp
    cnn: Cnn
    timm: Timm
    transfer: Transfer
    epochs: Epochs
    batch_size: BatchSize
    accumulate: Accumulate
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop", "muon"]
    learning_rate: LearningRate
    momentum: Fraction
    weight_decay: float = Field(ge=0, le=10)
    schedule: Literal["constant", "cosine", "one_cycle"]
    warm_up: Fraction
    label_smoothing: Fraction
    clip_norm: float | None = Field(gt=0)
    ema_decay: float | None = Field(gt=0, lt=1)
    augment: Augment
    flip_at_test: bool
    normalize: Literal["none", "half", "fitted", "pretrained"]
    keep: Literal["best", "last"]
    patience: int | None = Field(ge=1)
    max_minutes: float | None = Field(gt=0, le=100_000)
    precision: Precision
    devices: int = Field(ge=1, le=1024)
    seed: Seed
    threads: int | None = Field(ge=1, le=1024)

    @field_validator("transfer")
    @classmethod
    def _is_on_the_hub(cls, transfer: Transfer, others: ValidationInfo) -> Transfer:
        if transfer.weights == "hub" and others.data.get("network") in OWN:
            raise ValueError(f"weights: hub should come with a network of timm, not {others.data['network']}")
        return transfer

    @field_validator("normalize")
    @classmethod
    def _has_been_pretrained(cls, normalize: str, others: ValidationInfo) -> str:
        transfer = others.data.get("transfer")
        if normalize == "pretrained" and transfer and transfer.weights is None:
            raise ValueError("should come with train.transfer.weights, which say how")
        return normalize


def options(params: Train) -> dict[str, Any]:
    """Return the options of the network that is chosen."""
    section: Section = getattr(params, params.network.partition("/")[0])
    return section.model_dump()
