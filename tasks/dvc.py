"""Ask DVC for a stage, and understand its answer."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from tasks.__main__ import STAGES
from tasks.harness import lifeline
from tasks.harness.errors import StageError

# Prefect's adapters, or one of Python's own.
Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]
Outcome = Literal["ran", "restored", "up to date"]

# DVC's three answers to `dvc repro`, by how the line that gives them begins.
ANSWERS: dict[str, Outcome] = {
    "Running stage '{}'": "ran",
    "Stage '{}' is cached": "restored",
    "Stage '{}' didn't change": "up to date",
}
REQUEST = re.compile(r"@\w+(?=')")  # of a stage on request DVC says what for: 'quantize@int8'
# What DVC says to someone at a terminal, noise in the log of a run.
ASIDES = (
    "Data and pipelines are up to date.",
    "Updating lock file",
    "Generating lock file",
    "To track the changes",
    "\tgit add",
    "To enable auto staging",
    "\tdvc config",
    "Use `dvc push`",
    "ERROR: failed to reproduce",  # why, the stage has said; where it has not, this is the reason that is raised
)
# How DVC says that another of its commands holds its locks, and when to ask again.
BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")
# How it says that a stage was killed by SIGKILL, its shell having taken its place or not.
KILLED = ("exited with -9", "exited with 137")
ASK_AGAIN_S = 2
PATIENCE_S = 5  # with a process that has been told to end
LOGS = Path(".cache/logs")
AT_WORK = threading.Lock()  # held while a stage runs: who takes it waits for the end of that stage, and none follows
interruptions: list[BaseException] = []  # what has stopped a stage of this process, as a signal does


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
        self.stage = reason.partition(":")[0]
        self.reason = reason


class StageTimedOut(StageFailed, TimeoutError):
    """A stage took longer than it may; as a TimeoutError, so that Prefect calls the task run timed out."""


@dataclass
class Answer:
    """What one `dvc repro` printed, and how it ended."""

    lines: deque[str] = field(default_factory=lambda: deque(maxlen=100))  # the last ones
    outcome: Outcome | None = None
    code: int = 0
    timed_out: bool = False

    @property
    def busy(self) -> bool:
        return bool(self.code) and any(words in line for line in self.lines for words in BUSY)


def reproduce(stage: str, time_limit_s: float, logger: Logger, force: bool = False) -> StageRun:
    """Bring one stage up to date through `dvc repro`, passing on its output line by line.

    Where another DVC command is at work in the project, it asks again until that has ended.

    Args:
        force: run it even if DVC sees no change.

    Raises:
        StageTimedOut: it took longer than `time_limit_s`; it has been stopped.
        StageFailed: DVC or the stage failed; the message says why.
    """
    with AT_WORK:
        return _reproduce(stage, time_limit_s, logger, force)


def _reproduce(stage: str, time_limit_s: float, logger: Logger, force: bool) -> StageRun:
    started = time.monotonic()
    words = ("--force", stage) if force else (stage,)
    answer = _ask_dvc(words, time_limit_s, logger)
    while answer.busy and time.monotonic() - started < time_limit_s:
        logger.warning("DVC is busy with another command; %s is asked for again in %d s", stage, ASK_AGAIN_S)
        time.sleep(ASK_AGAIN_S)
        answer = _ask_dvc(words, time_limit_s - (time.monotonic() - started), logger)
    if answer.timed_out:
        raise StageTimedOut(f"{stage}: stopped after {time_limit_s:g} s, the limit in flow.time_limit_s.{stage}")
    if answer.code:
        raise StageFailed(reason(stage, list(answer.lines)))
    if answer.outcome is None:
        raise StageFailed(f"{stage}: DVC gave none of the answers that are known: {list(answer.lines)}")
    run = StageRun(stage, answer.outcome, round(time.monotonic() - started, 2))
    logger.info("%s: %s, %.1f s", run.stage, run.outcome, run.seconds)
    return run


def _ask_dvc(words: Sequence[str], time_limit_s: float, logger: Logger) -> Answer:
    *_, stage = words
    answer = Answer()
    LOGS.mkdir(parents=True, exist_ok=True)
    with (
        log_path(stage).open("w", encoding="utf-8", buffering=1) as log,
        _dvc_repro(words) as process,
        _time_limit(process, time_limit_s, answer),
    ):
        assert process.stdout is not None
        last_sentence: list[str] = []  # that may be why the stage failed, which whoever asked tells at the end
        for line in map(str.rstrip, process.stdout):
            print(line, file=log)
            answer.lines.append(line)
            named = REQUEST.sub("", line)
            if given := next((what for start, what in ANSWERS.items() if named.startswith(start.format(stage))), None):
                answer.outcome = given
            if line.startswith(f"{stage}: "):
                _pass_on(last_sentence, logger)
                last_sentence = [line]
            elif last_sentence:
                last_sentence.append(line)
            else:
                _pass_on([line], logger)
        answer.code = process.wait()
        if not answer.code:
            _pass_on(last_sentence, logger)
    return answer


def _pass_on(lines: Sequence[str], logger: Logger) -> None:
    for line in lines:
        logger.log(logging.DEBUG if not line or line.startswith(ASIDES) else logging.INFO, line)


def log_path(stage: str) -> Path:
    """Return where the output of the stage's last run through the flow is kept."""
    return LOGS / f"{stage}.log"


def start(
    words: Sequence[str], folder: Path = Path(), stdout: IO[str] | int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """Start `dvc repro --single-item` in the project at `folder`, in a process group of its own; see `stop`.

    Its standard input is the lifeline of the stages: it closes with this process, however that ends.
    """
    # DVC runs the stage through a shell, where this interpreter has to come first; buffered, lines come at the end.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--single-item", *words],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", lifeline.STDIN_IS_LIFELINE: "1"},
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,  # a terminal's Ctrl-C is for this process, which ends the others in order
    )


@contextmanager
def _dvc_repro(words: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with start(words) as process:
        try:
            yield process
        except BaseException as error:
            error.add_note(f"in the stage {words[-1]}")
            if not isinstance(error, Exception):
                interruptions.append(error)
            stop(process)
            raise


@contextmanager
def _time_limit(process: subprocess.Popen[str], seconds: float, answer: Answer) -> Iterator[None]:
    def end() -> None:
        answer.timed_out = True
        stop(process)

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def stop(process: subprocess.Popen[str]) -> None:
    """End the stage by its lifeline; DVC notes that it failed and ends, too. What does not end is killed.

    DVC writes its lock files in place, so it is not to be killed while it can end by itself.
    """
    assert process.stdin is not None
    process.stdin.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_S)
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
    process.wait()


def reason(stage: str, lines: list[str]) -> str:
    """Find in the output why a stage failed: its own last sentence, which begins with its name, or DVC's."""
    own = [index for index, line in enumerate(lines) if line.startswith(f"{stage}: ")]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    if any(line.endswith(KILLED) for line in errors):
        return (
            f"{stage}: killed by SIGKILL, which is how a system ends what takes more memory than there is, unless "
            "somebody did: smaller images, a smaller network and a smaller batch_size take less"
        )
    if not own:
        return f"{stage}: {'; '.join(errors) or lines[-1:]}; the lines above say more"
    end = next((index for index in range(own[-1], len(lines)) if lines[index].startswith("ERROR: ")), len(lines))
    return "\n".join(lines[own[-1] : end]).rstrip()


def stale() -> list[str]:
    """List the stages whose inputs or outputs are not what DVC has recorded; they, and what follows, would run again.

    Raises:
        StageError: DVC does not say.
    """
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise StageError(f"dvc status failed: {answer.stderr.strip()}")
    changed = json.loads(answer.stdout)
    return [stage for stage in STAGES if stage in changed]
