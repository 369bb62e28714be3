"""The worker of a schedule: Prefect's own, which starts the runs, one at a time. It ends with the schedule.

Run:    python -m flows.runtime.worker SCHEDULE POOL: the pid of the schedule, which starts it, and the work pool
"""

import os
import runpy
import signal
import sys
from collections.abc import Sequence

from rich.console import Console

from flows.runtime.stopped import end_with

PID = "SCHEDULE_WORKER"  # environment of a run: which process has started it


def main(arguments: Sequence[str]) -> None:
    schedule, pool = arguments
    # By SIGKILL: at any other it would kill its run, which is to end its stage and to tell the server first.
    end_with(int(schedule), signal.SIGKILL)
    os.environ[PID] = str(os.getpid())
    limits = ("--type", "process", "--limit", "1", "--install-policy", "never")
    sys.argv[1:] = ("worker", "start", "--pool", pool, "--name", pool, *limits)
    try:
        runpy.run_module("prefect", run_name="__main__")
    except KeyboardInterrupt:  # while it is imported: later Prefect catches it
        sys.exit(128 + signal.SIGINT)


def end_run_with_worker() -> None:
    """Have this process, a run, end as by SIGTERM once the worker has ended, killed as it may be."""
    Console.on_broken_pipe = _say_no_more  # type: ignore[assignment, method-assign]
    end_with(int(os.environ.get(PID) or os.getppid()), signal.SIGTERM)


def _say_no_more(console: Console) -> None:
    """Go on where nobody reads Prefect's log any more, which ends the process else: the server is to be told how."""
    console.quiet = True


if __name__ == "__main__":
    main(sys.argv[1:])
