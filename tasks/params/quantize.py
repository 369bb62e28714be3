"""The section `quantize` of params.yaml."""

from typing import Literal

from pydantic import Field

from tasks.harness.section import Section


class Quantize(Section):
    to: list[Literal["int8"]] = Field(max_length=1)
    calibration_images: int = Field(ge=1, le=10_000)
    max_accuracy_drop: float = Field(ge=0, le=1)
    max_changed_labels: float = Field(ge=0, le=1)
