"""The section `train` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.harness.section import Section, Seed

Epochs = Annotated[int, Field(ge=1, le=10_000)]
BatchSize = Annotated[int, Field(ge=1, le=65536)]
LearningRate = Annotated[float, Field(gt=0, le=10)]


class Train(Section):
    epochs: Epochs
    batch_size: BatchSize
    learning_rate: LearningRate
    normalize: Literal["none", "half", "fitted"]
    seed: Seed
    threads: int | None = Field(ge=1, le=1024)
