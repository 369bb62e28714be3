"""Which models have been in service, since when, and why; and which wait for approval.

Reads:  the registry: models/registry, or the folder in REGISTRY
Run:    python -m flows history [--at TIME]; without the option AT
"""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, time

from flows.promotion import history, waiting
from flows.promotion.history import Entry
from serving.champion import registry
from tasks.harness import section
from tasks.harness.errors import ParamsError, StageError


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m flows history", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--at",
        type=_moment,
        default=os.environ.get("AT") or None,
        metavar="TIME",
        help="show the entry of the model that was in service then: 2026-11-20 (at its end) or 2026-11-20T03:41, UTC",
    )
    options = parser.parse_args(arguments)
    root = registry()
    try:
        section.read()  # this is the project's folder
        entries, waits = history.read(root), waiting.read(root)
    except (ParamsError, StageError, OSError) as error:
        sys.exit(f"history: {error}")
    chosen = entries if options.at is None else at(entries, options.at)
    if not entries:
        print(
            f"No model has been in service yet: {root} has no history. make promote puts the first one there, "
            "make pull-champion brings that of a remote"
        )
    elif not chosen:
        print(f"No model was in service then: the first one is, since {entries[0].time[:16]}")
    for entry in chosen:
        print(entry.line)
    for entry in waits if options.at is None else []:
        print(f'waits {entry.time[:16].replace("T", " ")}  make promote VERSION={entry.version} REASON="..."')


def at(entries: list[Entry], moment: datetime) -> list[Entry]:
    """Return the entry of the model that was in service at a moment, if there was one."""
    return [entry for entry in entries if datetime.fromisoformat(entry.time) <= moment][-1:]


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 2026-11-20, or 2026-11-20T03:41") from None
    if len(text) <= len("2026-11-20"):
        moment = datetime.combine(moment, time.max)
    elif len(text) <= len("2026-11-20T03:41"):  # as the history shows it: until the end of that minute
        moment = moment.replace(second=59, microsecond=999_999)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


if __name__ == "__main__":
    main()
