"""Prefect's log of a run: of a stage that failed, the sentence and no traceback."""

import logging
from collections.abc import Iterator

import pytest
from prefect.logging.configuration import setup_logging

from flows.runtime import log
from tasks.dvc import StageFailed

LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Twice, as by the second run of a schedule."""
    log.quieten()
    log.quieten()
    yield
    for name in LOGGERS:
        logging.getLogger(name).removeFilter(log.WITHOUT_TRACEBACK)
    for name in log.SENDERS:
        logging.getLogger(name).removeFilter(log._nothing)


@pytest.mark.parametrize("name", LOGGERS)
@pytest.mark.parametrize(("error", "traceback"), [(StageFailed("train: no"), False), (ZeroDivisionError(), True)])
def test_only_a_defect_is_logged_with_its_traceback(name: str, error: Exception, traceback: bool) -> None:
    record = logging.makeLogRecord({"msg": "it failed", "exc_info": (type(error), error, None)})
    assert logging.getLogger(name).filter(record)
    assert (record.getMessage(), bool(record.exc_info)) == ("it failed", traceback)
    assert logging.getLogger(name).filters.count(log.WITHOUT_TRACEBACK) == 1


def test_what_prefect_cannot_deliver_is_not_said_event_by_event() -> None:
    for name in log.SENDERS:
        setup_logging()  # as Prefect does at the start of each task
        assert not logging.getLogger(name).filter(logging.makeLogRecord({"msg": "cannot connect"}))
