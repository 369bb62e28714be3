"""The flow's wiring: the chain, each task's limit, retries for the download alone."""

import logging
from pathlib import Path

import pytest
from prefect.states import Failed

from flows import artifacts, last_good, report, training
from tasks import stages
from tasks.dvc import StageFailed, StageRun, StageTimedOut
from tests.conftest import write_params

STAGES = ("download", "transform", "train", "evaluate", "export")


class Task:
    """Stands for a Prefect task and notes how it is called."""

    def __init__(self, stage: str, calls: list[object]) -> None:
        self.stage = stage
        self.calls = calls
        self.options: dict[str, int] = {}

    def with_options(self, **options: int) -> "Task":
        self.options = options
        return self

    def __call__(self, time_limit_s: float, wait_for: list[StageRun] | None = None) -> StageRun:
        self.calls.append((self.stage, time_limit_s, [run.stage for run in wait_for or []], self.options))
        return StageRun(self.stage, "ran", 1.0)


def test_the_chain_with_each_stages_own_limit_and_retries_for_the_download(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(
        flow={
            "download_retries": 4,
            "retry_delay_s": 7,
            "time_limit_s": dict(zip(STAGES, range(1, 6), strict=True)),
        }
    )
    calls: list[object] = []
    published: list[int] = []
    for stage in STAGES:
        monkeypatch.setattr(training, stage, Task(stage, calls))
    monkeypatch.setattr(training, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(artifacts, "publish", lambda runs: published.append(len(runs)))
    monkeypatch.setattr(report, "write_run", lambda *_: None)
    monkeypatch.setattr(last_good, "keep", lambda: None)
    training.training.fn([])
    assert calls == [
        ("download", 1, [], {"retries": 4, "retry_delay_seconds": 7}),
        ("transform", 2, ["download"], {}),
        ("train", 3, ["transform"], {}),
        ("evaluate", 4, ["train"], {}),
        ("export", 5, ["evaluate"], {}),
    ]
    assert published == [5]


def test_no_task_is_retried_unless_the_flow_says_so() -> None:
    assert [getattr(stages, stage).retries for stage in STAGES] == [0] * 5


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (StageFailed("download: no source delivered digits.csv.gz (57523 bytes, MD5 ...). Tried:"), True),
        (StageFailed("download: params.yaml is refused:"), False),
        (StageTimedOut("download: stopped after 3600 s, the limit in flow.time_limit_s.download"), False),
        (ZeroDivisionError(), False),
    ],
)
def test_only_a_download_that_no_source_delivered_is_tried_again(error: Exception, again: bool) -> None:
    assert stages.no_source_delivered(None, None, Failed(data=error)) is again
    assert stages.download.retry_condition_fn is stages.no_source_delivered
