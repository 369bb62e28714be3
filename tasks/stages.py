"""The five stages as Prefect tasks: each asks DVC for its stage, and DVC decides whether it has to run."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

Outcome = Literal["ran", "restored", "up to date"]

# DVC's three answers to `dvc repro`, by how the line that gives them begins.
ANSWERS: dict[str, Outcome] = {
    "Running stage '{}'": "ran",
    "Stage '{}' is cached": "restored",
    "Stage '{}' didn't change": "up to date",
}
# What DVC says to someone at a terminal, noise in the log of a run.
ASIDES = (
    *("Data and pipelines are up to date.", "Updating lock file", "Generating lock file"),
    *("To track the changes", "\tgit add", "To enable auto staging", "\tdvc config", "Use `dvc push`"),
)
PATIENCE_S = 10  # from SIGTERM to SIGKILL


@dataclass(frozen=True)
class StageRun:
    """What DVC made of one stage."""

    stage: str
    outcome: Outcome
    seconds: float


class StageFailed(Exception):
    """A stage did not succeed: `reason`, which begins with its name, says why.

    As a string it is the first line alone, because Prefect repeats it in each of its own messages.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason.splitlines()[0])
        self.reason = reason


class StageTimedOut(StageFailed, TimeoutError):
    """A stage took longer than it may; as a TimeoutError, so that Prefect calls the task run timed out."""


@task(task_run_name="download", cache_policy=NO_CACHE)
def download(time_limit_s: float) -> StageRun:
    """Fetch the dataset's archives and verify them."""
    return reproduce("download", time_limit_s)


@task(task_run_name="transform", cache_policy=NO_CACHE)
def transform(time_limit_s: float) -> StageRun:
    """Decode them into arrays and hold out a validation split."""
    return reproduce("transform", time_limit_s)


@task(task_run_name="train", cache_policy=NO_CACHE)
def train(time_limit_s: float) -> StageRun:
    """Train the network."""
    return reproduce("train", time_limit_s)


@task(task_run_name="evaluate", cache_policy=NO_CACHE)
def evaluate(time_limit_s: float) -> StageRun:
    """Measure it on the test images."""
    return reproduce("evaluate", time_limit_s)


@task(task_run_name="export", cache_policy=NO_CACHE)
def export(time_limit_s: float) -> StageRun:
    """Export it to ONNX and publish the file if it passes the parity gate."""
    return reproduce("export", time_limit_s)


def reproduce(stage: str, time_limit_s: float) -> StageRun:
    """Bring one stage up to date through `dvc repro`, passing on its output line by line.

    Raises:
        StageTimedOut: it took longer than `time_limit_s`; it has been stopped.
        StageFailed: DVC or the stage failed; the message says why.
    """
    logger = get_run_logger()
    started = time.monotonic()
    outcome: Outcome | None = None
    lines: deque[str] = deque(maxlen=100)
    with _dvc_repro(stage) as process, _time_limit(process, time_limit_s) as expired:
        assert process.stdout is not None
        for line in process.stdout:
            line = line.rstrip("\n")
            lines.append(line)
            outcome = next((what for start, what in ANSWERS.items() if line.startswith(start.format(stage))), outcome)
            logger.log(logging.DEBUG if not line or line.startswith(ASIDES) else logging.INFO, line)
        code = process.wait()
    if expired.is_set():
        raise StageTimedOut(f"{stage}: stopped after {time_limit_s:g} s, the limit in flow.time_limit_s.{stage}")
    if code:
        raise StageFailed(_reason(stage, list(lines)))
    if outcome is None:
        raise StageFailed(f"{stage}: DVC gave none of the answers that are known: {list(lines)}")
    run = StageRun(stage, outcome, round(time.monotonic() - started, 2))
    logger.info("%s: %s, %.1f s", run.stage, run.outcome, run.seconds)
    return run


@contextmanager
def _dvc_repro(stage: str) -> Iterator[subprocess.Popen[str]]:
    # DVC runs the stage through a shell, where this interpreter has to come first; buffered, lines come at the end.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--single-item", stage],
        env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,  # so that DVC and the stage can be stopped together
    )
    with process:
        try:
            yield process
        except BaseException:
            _stop(process)
            raise


@contextmanager
def _time_limit(process: subprocess.Popen[str], seconds: float) -> Iterator[threading.Event]:
    expired = threading.Event()

    def stop() -> None:
        expired.set()
        _stop(process)

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()


def _stop(process: subprocess.Popen[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(PATIENCE_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _reason(stage: str, lines: list[str]) -> str:
    """Find in the output why a stage failed: its own last sentence, which begins with its name, or DVC's."""
    own = [index for index, line in enumerate(lines) if line.startswith(f"{stage}: ")]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    if not own:
        return f"{stage}: {'; '.join(errors) or lines[-1:]}; the lines above say more"
    end = next((index for index in range(own[-1], len(lines)) if lines[index].startswith("ERROR: ")), len(lines))
    return "\n".join(lines[own[-1] : end]).rstrip()


class _WithoutTraceback(logging.Filter):
    """Leaves out the traceback of a failed stage, which shows Prefect's insides: the message says all there is."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], StageFailed):
            record.exc_info = None
        return True


for _name in ("prefect.task_runs", "prefect.flow_runs"):
    logging.getLogger(_name).addFilter(_WithoutTraceback())
