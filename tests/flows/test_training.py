"""The flow's wiring: the chain, each task's limit, retries for the download alone."""

import logging
from pathlib import Path

import pytest
from prefect.states import Failed

from flows import training
from flows.report import artifacts, summary
from flows.runtime import labels, last_good
from tasks import stages
from tasks.dvc import StageFailed, StageRun, StageTimedOut
from tasks.params import whole
from tests.support.params import write_params

STAGES = ("download", "transform", "train", "evaluate", "export", "quantize")


class Task:
    """Stands for a Prefect task and notes how it is called."""

    def __init__(self, stage: str, calls: list[object]) -> None:
        self.stage = stage
        self.calls = calls
        self.options: dict[str, int] = {}

    def with_options(self, **options: int) -> "Task":
        self.options = options
        return self

    def __call__(self, time_limit_s: float, wait_for: list[StageRun] | None = None, force: bool = False) -> StageRun:
        if force:
            self.calls.append("forced")
        self.calls.append((self.stage, time_limit_s, [run.stage for run in wait_for or []], self.options))
        return StageRun(self.stage, "ran", 1.0)


@pytest.fixture
def calls(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What a flow has done: the calls of the tasks, and what comes after them."""
    made: list[object] = []
    Path("data/inbox").mkdir(parents=True)
    for stage in STAGES:
        monkeypatch.setattr(training, stage, Task(stage, made))
    monkeypatch.setattr(training, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(labels, "tag", lambda: None)
    monkeypatch.setattr(artifacts, "publish", lambda runs: made.append(f"{len(runs)} published"))
    monkeypatch.setattr(summary, "write_run", lambda *_: made.append("written"))
    monkeypatch.setattr(last_good, "keep", lambda: made.append("kept"))
    return made


def test_the_chain_with_each_stages_own_limit_and_retries_for_the_download(calls: list[object]) -> None:
    write_params(
        flow={
            "download_retries": 4,
            "retry_delay_s": 7,
            "time_limit_s": dict(zip(STAGES, range(1, 7), strict=True)),
        }
    )
    runs = training.training.fn([])
    assert [run.stage for run in runs] == list(STAGES[:5])
    assert calls == [
        ("download", 1, [], {"retries": 4, "retry_delay_seconds": 7}),
        ("transform", 2, ["download"], {}),
        ("train", 3, ["transform"], {}),
        ("evaluate", 4, ["train"], {}),
        ("export", 5, ["evaluate"], {}),
        "5 published",
        "written",
        "kept",
    ]


def test_the_8_bit_model_is_made_after_the_export_where_params_ask_for_it(calls: list[object]) -> None:
    write_params(quantize={"to": ["int8"]})
    assert [run.stage for run in training.training.fn([])] == list(STAGES)
    assert calls[5:] == [("quantize", 3600, ["export"], {}), "6 published", "written", "kept"]


def test_a_download_behind_links_is_run_in_any_case(calls: list[object]) -> None:
    Path("data/inbox/cat").symlink_to("..")
    training.training.fn([])
    assert calls[:2] == ["forced", ("download", 3600, [], {"retries": 2, "retry_delay_seconds": 10})]


def test_a_run_whose_export_failed_is_published_but_not_kept_as_complete(
    calls: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(*_: object, **__: object) -> None:
        raise StageFailed("export: parity failed")

    monkeypatch.setattr(training, "export", export)
    with pytest.raises(StageFailed):
        training.training.fn([])
    assert calls[4:] == ["4 published"]


def test_changes_are_in_params_before_the_first_stage(calls: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    def with_options(*_: object, **__: object) -> None:
        calls.append(whole.load().train.epochs)
        raise StageFailed("download: enough")

    monkeypatch.setattr(Task, "with_options", with_options)
    with pytest.raises(StageFailed):
        training.training.fn(["train.epochs=7"])
    assert calls == [7]


def test_no_task_is_retried_unless_the_flow_says_so() -> None:
    assert [getattr(stages, stage).retries for stage in STAGES] == [0] * 6


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
