"""The section `quantize` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.harness.section import Section


class Quantize(Section):
    to: Annotated[tuple[Literal["int8"], ...], Field(strict=False, max_length=1)]
    calibration_images: int = Field(ge=1, le=10_000)
    max_accuracy_drop: float = Field(ge=0, le=1)
    max_changed_labels: float = Field(ge=0, le=1)
