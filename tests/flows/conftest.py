"""What the tests of commands share: a command sets how its process ends, and this process is not to end with it."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """Put back the handlers of signals that a command has set."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def checkout(workspace: Path) -> Path:
    """A workspace where a run may begin: in a git repository, with a folder for images of one's own."""
    (workspace / ".git").mkdir()
    (workspace / "data/inbox").mkdir(parents=True)
    return workspace
