"""Prefect's log of a run, kept to what a person reads."""

import logging
import re

from prefect.exceptions import FailedRun

from tasks.dvc import StageFailed

# Prefect's last line of a task or a flow that has not succeeded, in which it repeats why, of a night and its log.
FINISHED = re.compile(r"(Finished in state \w+)\(.*(?:\bStage(?:Failed|TimedOut)\b|\\nlog: ).*\)", re.DOTALL)
# Of a task that is tried again: the last failure, if it comes to that, says why.
RETRIED = re.compile(r"Task run failed with exception: \bStageFailed\b.* - (Retry \d+/\d+ will start .*)", re.DOTALL)
# What is raised for it: by a stage, and by Prefect itself where a flow has ended in a failed state of its own making.
RAISED = (StageFailed, FailedRun)
TIMED_OUT = ("Task run failed due to timeout: StageTimedOut", "Flow run failed due to timeout: StageTimedOut")


class ToldOnce(logging.Filter):
    """Leaves out why a stage or a night failed, which Prefect says again and again, of task, flow and each retry.

    Who started the run says it at the end, and the states of task and flow keep it for the UI.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if (record.exc_info and isinstance(record.exc_info[1], RAISED)) or message.startswith(TIMED_OUT):
            return False
        if kept := FINISHED.fullmatch(message) or RETRIED.fullmatch(message):
            record.msg, record.args = kept[1], ()
        return True


TOLD_ONCE = ToldOnce()
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
        logging.getLogger(name).addFilter(TOLD_ONCE)  # once, however often it is called
    for name in SENDERS:
        logging.getLogger(name).addFilter(_nothing)  # a level would not last: Prefect sets up its log several times


def _nothing(_: logging.LogRecord) -> bool:
    return False
