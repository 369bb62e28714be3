"""A lock on a file: it ends with the process that holds it, and names that process."""

import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

LOOK_AGAIN_S = 0.1

Holder = dict[str, Any]  # pid, host and since; empty for one that has not yet written who it is


class Locked(Exception):
    """Another process, `holder`, has the lock."""

    def __init__(self, holder: Holder) -> None:
        self.holder = holder


@contextmanager
def hold(path: Path, wait_s: float, waiting: Callable[[Holder], None] = lambda _: None) -> Iterator[None]:
    """Hold the lock on `path`.

    Args:
        wait_s: how long to wait for a process that has it.
        waiting: is called with that process before the wait, if there is one.

    Raises:
        Locked: another process had it all that time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        deadline = time.monotonic() + wait_s
        announced = False
        while not _acquired(file):
            if time.monotonic() >= deadline:
                raise Locked(_holder(file))
            if not announced:
                waiting(_holder(file))
                announced = True
            time.sleep(LOOK_AGAIN_S)
        file.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _acquired(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: IO[str]) -> Holder:
    file.seek(0)
    try:
        holder: Holder = json.loads(file.read())
    except ValueError:
        return {}
    return holder
