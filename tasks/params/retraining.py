"""The section `retraining` of params.yaml: what a model has to be before it goes live; no stage depends on it."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.harness.section import Section

Share = Annotated[float, Field(ge=0, le=1)]
Rule = Literal["better", "not_worse"]


class Arrivals(Section):
    """Of the images that have arrived since the model in service was trained; see tasks/gates/drift.py."""

    min_images: int = Field(ge=1)
    p: float = Field(gt=0, lt=1)
    distance: Share
    max_constant: Share
    max_gone: Share
    min_agreement: Share
    certainty: float = Field(gt=0.5, lt=1)


class Retraining(Section):
    rule: Rule
    min_accuracy: Share | None
    min_recall: Share | None
    max_latency_ms: float = Field(gt=0)
    max_memory_mb: int = Field(gt=0)
    arrivals: Arrivals
    approval: bool
    git_tags: bool
    keep_days: int = Field(ge=0, le=3650)
