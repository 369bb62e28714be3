"""The door to the flows: the right Python, and then one command.

Run:    python -m flows COMMAND [OPTION]...
"""

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from tasks.harness import interpreter

COMMANDS = {
    "training": ("flows.train", "what has to run of download, transform, train, evaluate, export"),
    "run": ("flows.run", "training by a recipe, or on digits without a mirror: make run"),
    "search": ("flows.search", "trials of the ranges in params.yaml, through DVC: make search"),
    "retraining": ("flows.runtime.schedule", "training on a schedule, with a Prefect server: make schedule"),
    "notify": ("flows.notify", "tell somebody how each night ended: make notify"),
    "promote": ("flows.promote", "judge a model and put it into service: make promote"),
    "rollback": ("flows.rollback", "put an earlier model back into service: make rollback"),
    "pull_champion": ("flows.pull_champion", "bring the model in service from the remote: make pull-champion"),
    "history": ("flows.history", "which models have been in service: make history"),
    "why": ("flows.why", "what was said of the model that was judged last: make why"),
    "report": ("flows.report.page", "what the last run came to, as a page: make report"),
}


def main(arguments: Sequence[str]) -> None:
    interpreter.check()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end_before_it_began)  # until the command sets its own
    command, *rest = arguments or ["--help"]
    if command not in COMMANDS:
        listed = "\n".join(f"  {name:<15}{what}" for name, (_, what) in COMMANDS.items())
        usage = f"usage: python -m flows COMMAND [OPTION]...\n\n{listed}"
        if command in ("-h", "--help"):
            print(usage)
            return
        print(f"{usage}\n\nflows: {command} is no command", file=sys.stderr)
        sys.exit(2)
    os.environ.setdefault("DO_NOT_TRACK", "1")  # else Prefect says that it collects data, and does
    module, _ = COMMANDS[command]
    import_module(module).main(rest)


def _end_before_it_began(number: int, _: object) -> NoReturn:
    os.write(2, f"stopped by {signal.Signals(number).name} before the run began\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    main(sys.argv[1:])
