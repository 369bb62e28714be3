"""The stages as Prefect tasks: each asks DVC for its stage, and DVC decides whether it has to run."""

from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from tasks.dvc import StageFailed, StageRun, reproduce


def no_source_delivered(_task: object, _run: object, state: State[Any]) -> bool:
    """Tell whether a download may succeed if it is tried again."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StageFailed) and "no source delivered" in error.reason


@task(task_run_name="download", cache_policy=NO_CACHE, retry_condition_fn=no_source_delivered)
def download(time_limit_s: float, force: bool = False) -> StageRun:
    """Fetch the dataset's archives and verify them, or take stock of your own images.

    Args:
        force: do it even if DVC sees no change.
    """
    return reproduce("download", time_limit_s, get_run_logger(), force)


@task(task_run_name="transform", cache_policy=NO_CACHE)
def transform(time_limit_s: float) -> StageRun:
    """Decode them into arrays and hold out a validation split."""
    return reproduce("transform", time_limit_s, get_run_logger())


@task(task_run_name="train", cache_policy=NO_CACHE)
def train(time_limit_s: float) -> StageRun:
    """Train the network."""
    return reproduce("train", time_limit_s, get_run_logger())


@task(task_run_name="evaluate", cache_policy=NO_CACHE)
def evaluate(time_limit_s: float) -> StageRun:
    """Measure it on the test images."""
    return reproduce("evaluate", time_limit_s, get_run_logger())


@task(task_run_name="export", cache_policy=NO_CACHE)
def export(time_limit_s: float) -> StageRun:
    """Export it to ONNX and publish the file if it passes the parity gate."""
    return reproduce("export", time_limit_s, get_run_logger())


@task(task_run_name="quantize", cache_policy=NO_CACHE)
def quantize(time_limit_s: float) -> StageRun:
    """Quantize it to 8 bits and publish that file, too, if it passes its gate."""
    return reproduce("quantize", time_limit_s, get_run_logger())
