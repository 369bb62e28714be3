"""What the commands that put a model into service share: why they do, and how they end."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from flows.runtime.stopped import STOPPED_BY, Stopped, stop
from tasks.harness.errors import ParamsError, StageError


def add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reason", default=os.environ.get("REASON") or None, metavar="TEXT", help="why, for the history (REASON)"
    )


@contextmanager
def ending(name: str) -> Iterator[None]:
    """End the command of this name in one sentence where its body cannot go on, or a signal stops it."""
    for number in STOPPED_BY:
        signal.signal(number, stop)
    try:
        yield
    except (ParamsError, StageError, OSError) as error:
        sys.exit(f"{name}: {error}")
    except Stopped as stopped:
        print(f"{name}: stopped; make history says what is in service", file=sys.stderr)
        sys.exit(128 + stopped.number)
