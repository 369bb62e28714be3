"""The section `transform` of params.yaml."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tasks.harness.section import Section, Seed
from tasks.prepared import Pixels


def _two(values: tuple[int, ...]) -> tuple[int, ...]:
    if len(values) != 2:
        raise ValueError("should be [height, width]")
    return values


class Transform(Section):
    # A YAML sequence arrives as a list, which strict mode would not take for a tuple.
    image_size: Annotated[tuple[Pixels, ...], Field(strict=False), AfterValidator(_two)]
    channels: Literal[1, 3]
    resize: Literal["crop", "stretch"]
    on_bad_image: Literal["fail", "skip"]
    max_bad_fraction: float = Field(ge=0, lt=1)
    on_leak: Literal["fail", "allow"]
    validation_fraction: float = Field(gt=0, lt=1)
    test_fraction: float = Field(gt=0, lt=1)
    seed: Seed
