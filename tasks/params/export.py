"""The section `export` of params.yaml."""

from typing import Annotated

from pydantic import AfterValidator, Field

from tasks.harness.section import Section
from tasks.params.train import BatchSize


def _distinct(values: tuple[int, ...]) -> tuple[int, ...]:
    if not values or len(set(values)) < len(values):
        raise ValueError("should be a list of at least one value, none of them twice")
    return values


def _provider(name: str) -> str:
    if name != "auto" and not name.endswith("ExecutionProvider"):
        raise ValueError("should be auto or a name of ONNX Runtime's, for example CUDAExecutionProvider")
    return name


class Export(Section):
    provider: Annotated[str, AfterValidator(_provider)]
    tolerance: float = Field(gt=0, le=1)
    batch_sizes: Annotated[tuple[BatchSize, ...], Field(strict=False), AfterValidator(_distinct)]
    calibrate: bool
