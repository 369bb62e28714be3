"""The section `flow` of params.yaml: how the flow runs the stages, none of which depends on it."""

from typing import Annotated

from pydantic import Field

from tasks.harness.section import Section

Seconds = Annotated[int, Field(ge=1, le=30 * 24 * 3600)]


class TimeLimits(Section):
    download: Seconds
    transform: Seconds
    train: Seconds
    evaluate: Seconds
    export: Seconds
    quantize: Seconds


class Flow(Section):
    download_retries: int = Field(ge=0, le=100)
    retry_delay_s: Seconds
    time_limit_s: TimeLimits
