"""The training flow from a terminal.

Reads:  params.yaml, dvc.yaml; without --wait, WAIT
Writes: what flows/training.py writes
Run:    python -m flows training [-S [params.yaml:]key=value]... [--wait SECONDS]
"""

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress

from flows.runtime.command import Training, run


def flow() -> Training:
    """Import the training flow: here, because Prefect takes seconds, in which the first line is to be read already."""
    from flows.training import training

    return training


def main(arguments: Sequence[str] | None = None) -> None:
    description = "Download, transform, train, evaluate and export: what has to run of it."
    parser = argparse.ArgumentParser(prog="python -m flows training", description=description)
    parser.add_argument(
        "-S",
        "--set-param",
        dest="changes",
        action="append",
        default=[],
        metavar="[params.yaml:]key=value",
        help="change params.yaml first, as dvc exp run -S does; may be given several times",
    )
    add_wait(parser)
    options = parser.parse_args(arguments)
    run(flow, options.changes, options.wait)


def add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait",
        type=_seconds,
        default=os.environ.get("WAIT") or "0",
        metavar="SECONDS",
        help="how long to wait for another run in this project (default: WAIT of the environment, else leave at once)",
    )


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if (seconds := float(text)) >= 0:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r}, by the option or as WAIT, is no number of seconds")
