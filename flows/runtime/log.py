"""Prefect's log of a run, kept to what a person reads."""

import logging

from tasks.dvc import StageFailed


class WithoutTraceback(logging.Filter):
    """Leaves out the traceback of a failed stage, which shows Prefect's insides: the message says all there is."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], StageFailed):
            record.exc_info = None
        return True


WITHOUT_TRACEBACK = WithoutTraceback()
# Where these fail, the server does not answer: for each task a page of them, and flows.runtime.command says it once.
SENDERS = (
    "prefect._internal.concurrency",
    "prefect.events.clients",
    "prefect.FlowRunCancellingObserver",
    "prefect.FlowRunSuspendingObserver",
)


def quieten() -> None:
    """Leave out of the log what is no help; to be called by the flow, in whichever process that runs."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(WITHOUT_TRACEBACK)  # once, however often it is called
    for name in SENDERS:
        logging.getLogger(name).addFilter(_nothing)  # a level would not last: Prefect sets up its log several times


def _nothing(_: logging.LogRecord) -> bool:
    return False
