"""The section `evaluate` of params.yaml."""

from pydantic import Field

from tasks.harness.section import Section
from tasks.params.train import BatchSize


class Evaluate(Section):
    batch_size: BatchSize
    pictures: int = Field(ge=1, le=100)
