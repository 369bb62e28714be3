"""One run at a time in one checkout: the lock that all runs share, and that of its schedule."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.harness import lock
from tasks.harness.lock import Holder, Locked

PATH = Path(".cache/run.lock")
SCHEDULE = Path(".cache/schedule.lock")  # held for as long as there is a schedule
NIGHT = Path(".cache/retraining.lock")  # held by a run of it, which works in a checkout of its own

_held: set[Path] = set()


class ProjectLocked(Exception):
    """Another run, `holder`, holds the project."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"{holder} is at work in this project; make run WAIT=SECONDS, or --wait SECONDS, waits for it")
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

    def waiting(holder: Holder) -> None:
        print(f"Waiting for {_name(holder)}, at most {wait_s:g} s", flush=True)

    try:
        with lock.hold(path, wait_s, waiting):
            _held.add(path)
            try:
                yield
            finally:
                _held.remove(path)
    except Locked as locked:
        raise ProjectLocked(_name(locked.holder)) from None


def _name(holder: Holder) -> str:
    return f"the run with pid {holder['pid']} on {holder['host']}, since {holder['since']}" if holder else "another run"
