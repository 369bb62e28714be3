"""One run at a time in one checkout: a lock that ends with the process that holds it, and names it."""

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

PATH = Path(".cache/run.lock")
SCHEDULE = Path(".cache/schedule.lock")  # held for as long as there is a schedule
LOOK_AGAIN_S = 0.5

_held: set[Path] = set()


class ProjectLocked(Exception):
    """Another run, `holder`, holds the project."""

    def __init__(self, holder: str) -> None:
        super().__init__(
            f"{holder} is at work in this project; wait for it with python -m flows.training --wait SECONDS"
        )
        self.holder = holder


@contextmanager
def hold(wait_s: float = 0, path: Path = PATH) -> Iterator[None]:
    """Hold the project's lock, which params.yaml and everything that a run writes are under.

    A process that holds it already may take it again.

    Args:
        wait_s: how long to wait for a run that holds it.
        path: of the lock.

    Raises:
        ProjectLocked: another process held it all that time.
    """
    if path in _held:
        yield
        return
    path.parent.mkdir(exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        _acquire(file, wait_s)
        file.truncate(0)
        holder = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        file.write(json.dumps(holder))
        file.flush()
        _held.add(path)
        try:
            yield
        finally:
            _held.remove(path)
            file.truncate(0)


def _acquire(file: IO[str], wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    announced = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise ProjectLocked(_holder(file)) from None
        if not announced:
            print(f"Waiting for {_holder(file)}, at most {wait_s:g} s", flush=True)
            announced = True
        time.sleep(LOOK_AGAIN_S)


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"the run with pid {holder['pid']} on {holder['host']}, since {holder['since']}"
    except ValueError:  # it has the lock, but has not yet written who it is
        return "another run"
