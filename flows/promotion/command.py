"""What the commands that put a model into service share: why they do, how they try it, and how they end."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.promotion.history import DIGITS
from flows.report import summary, verdicts
from flows.runtime.stopped import STOPPED_BY, Stopped, stop
from flows.runtime.trouble import said
from serving.probe import GOLDEN, MODEL
from tasks.gates import serving
from tasks.gates.verdict import Verdict
from tasks.harness.errors import ParamsError, StageError


def add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reason", default=os.environ.get("REASON") or None, metavar="TEXT", help="why, for the history (REASON)"
    )


def try_model(folder: Path, provider: str) -> Verdict:
    """Have a model of the registry answer its golden requests in a process of its own, and say what came of it.

    Raises:
        StageError: it does not answer as it did.
    """
    golden = json.loads((folder / GOLDEN).read_text(encoding="utf-8"))
    verdict = serving.gate((folder / MODEL).read_bytes(), golden, provider, limits=None)
    print(summary.row("serving", verdicts.line(verdict)), flush=True)
    if not verdict.passed:
        raise StageError(f"{folder.name[:DIGITS]} is not put into service: {verdicts.line(verdict)}")
    return verdict


@contextmanager
def ending(name: str) -> Iterator[None]:
    """End the command of this name in one sentence where its body cannot go on, or a signal stops it."""
    for number in STOPPED_BY:
        signal.signal(number, stop)
    try:
        yield
    except (ParamsError, StageError, OSError) as error:
        sys.exit(f"{name}: {said(error)}")
    except Stopped as stopped:
        print(f"{name}: stopped; make history says what is in service", file=sys.stderr)
        sys.exit(128 + stopped.number)
