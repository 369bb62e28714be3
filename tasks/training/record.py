"""The contract reports/training.json: what a network came to while it was trained. Reading it needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tasks.evaluation.record import Count, Share
from tasks.harness.records import read_record

TRAINING = "reports/training.json"
USAGE = ".cache/training.json"  # no output of the stage: it differs from run to run


@dataclass(frozen=True)
class Validated:
    """What the network came to on the validation split after an epoch."""

    epoch: Annotated[int, Field(ge=1)]
    accuracy: Share
    loss: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    confusion_matrix: list[list[Count]]  # row: actual class, column: predicted class

    @property
    def goodness(self) -> tuple[float, float]:
        """Sort by accuracy, and where that is the same by the loss."""
        return self.accuracy, -self.loss


@dataclass(frozen=True)
class Epochs:
    """The contents of training.json: two epochs of a training, and whose weights the model has."""

    kept: Literal["best", "last"]
    best: Validated
    last: Validated

    @classmethod
    def read(cls, folder: Path = Path()) -> "Epochs":
        """Read it in the project at `folder`; see `read_record`."""
        return read_record(folder / TRAINING, cls)


@dataclass(frozen=True)
class Usage:
    """What the last training took of this machine."""

    images_per_s: Annotated[float, Field(ge=0)]  # by all processes, validations included, since it began or went on
    peak_memory_mb: Annotated[float, Field(ge=0)]  # of the first process
    peak_gpu_memory_mb: Annotated[float, Field(ge=0)] | None  # of its GPU

    def __str__(self) -> str:
        gpu = "" if self.peak_gpu_memory_mb is None else f", of the GPU's {self.peak_gpu_memory_mb:,.0f} MB"
        return f"{self.images_per_s:,.0f} images/s, peak memory {self.peak_memory_mb:,.0f} MB{gpu}"
