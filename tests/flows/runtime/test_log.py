"""Prefect's log of a run: why a stage failed is not in it again and again."""

import logging
from collections.abc import Iterator

import pytest
from prefect.exceptions import FailedRun
from prefect.logging.configuration import setup_logging

from flows.runtime import log
from tasks.dvc import StageFailed, StageTimedOut

LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Twice, as by the second run of a schedule."""
    log.quieten()
    log.quieten()
    yield
    for name in LOGGERS:
        logging.getLogger(name).removeFilter(log.TOLD_ONCE)
    for name in log.SENDERS:
        logging.getLogger(name).removeFilter(log._nothing)


REASON = "train: the loss is not finite"
FAILED = (
    "Finished in state Failed('Task run encountered an exception StageFailed: train: the loss is not finite')",
    "Finished in state Failed('Flow run encountered an exception: StageFailed: train: the loss\nis not finite')",
    """Finished in state TimedOut("Task run failed due to timeout: StageTimedOut('train: stopped after 1 s')")""",
    r"Finished in state Failed('train: the loss is not finite\nlog: .cache/retraining/kept/logs/train.log')",
)


@pytest.mark.parametrize("name", LOGGERS)
def test_why_a_stage_failed_is_left_to_who_says_it_at_the_end(name: str) -> None:
    logger = logging.getLogger(name)
    error = StageFailed(REASON)
    with_traceback: dict[str, object] = {
        "msg": f"Task run failed with exception: {error!r}",
        "exc_info": (type(error), error, None),
    }
    ended = FailedRun(REASON)
    of_prefect: dict[str, object] = {
        "msg": "Engine execution exited with unexpected exception",
        "exc_info": (type(ended), ended, None),
    }
    late: list[dict[str, object]] = [
        {"msg": f"{run} run failed due to timeout: {StageTimedOut(REASON)!r}"} for run in ("Task", "Flow")
    ]
    assert not [
        fields for fields in (with_traceback, of_prefect, *late) if logger.filter(logging.makeLogRecord(fields))
    ]
    records = [logging.makeLogRecord({"msg": message}) for message in FAILED]
    assert all(map(logger.filter, records))
    said = [record.getMessage() for record in records]
    assert said == [
        "Finished in state Failed",
        "Finished in state Failed",
        "Finished in state TimedOut",
        "Finished in state Failed",
    ]
    assert logger.filters.count(log.TOLD_ONCE) == 1


def test_a_retry_is_one_short_line_without_the_reason() -> None:
    error = StageFailed(
        "download: no source delivered train.gz (8 bytes, MD5 0). Tried:\n  http://127.0.0.1:9/: refused"
    )
    message = "Task run failed with exception: %r - Retry %s/%s will start %s"
    record = logging.makeLogRecord({"msg": message, "args": (error, 1, 2, "10 second(s) from now")})
    assert logging.getLogger("prefect.task_runs").filter(record)
    assert record.getMessage() == "Retry 1/2 will start 10 second(s) from now"


@pytest.mark.parametrize("name", LOGGERS)
@pytest.mark.parametrize(
    "message",
    [
        "Finished in state Completed()",
        "Finished in state Failed('Flow run encountered an exception: ZeroDivisionError: 100%')",
        "Task run failed with exception: ZeroDivisionError('x') - Retry 1/2 will start immediately",
    ],
)
def test_a_defect_keeps_its_traceback_and_all_else_its_words(name: str, message: str) -> None:
    error = ZeroDivisionError()
    record = logging.makeLogRecord({"msg": message, "exc_info": (type(error), error, None)})
    assert logging.getLogger(name).filter(record)
    assert (record.getMessage(), bool(record.exc_info)) == (message, True)


def test_what_prefect_cannot_deliver_is_not_said_event_by_event() -> None:
    for name in log.SENDERS:
        setup_logging()  # as Prefect does at the start of each task
        assert not logging.getLogger(name).filter(logging.makeLogRecord({"msg": "cannot connect"}))
