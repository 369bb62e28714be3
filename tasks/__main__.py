"""The door to the stages: the right Python, params.yaml as a whole, a lifeline, and then one stage.

Run:    python -m tasks STAGE
"""

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from tasks.harness import code, interpreter, lifeline

STAGES = ("download", "transform", "train", "evaluate", "export")
ON_REQUEST = ("quantize",)  # by params.yaml: dvc.yaml has this stage where quantize.to names something


def main(arguments: Sequence[str]) -> NoReturn:
    if len(arguments) != 1 or arguments[0] not in (*STAGES, *ON_REQUEST):
        sys.exit(f"usage: python -m tasks STAGE, which is one of {', '.join((*STAGES, *ON_REQUEST))}")
    interpreter.check()
    run(arguments[0])


def run(stage: str) -> NoReturn:
    """Run a stage as the whole of this process, which ends with it."""
    lifeline.attach(stage)
    code.at_start()
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "1"  # it would look for them in every package that is installed
    gc.disable()  # a tenth of the time that the imports take
    _check_params(stage)
    main = import_module(f"tasks.{stage}").main
    gc.freeze()  # what was imported stays
    gc.enable()
    try:
        main()
    except SystemExit as end:
        if not isinstance(end.code, str):
            raise
        # In one piece: Python would write the line break apart, and of several processes one may write in between.
        sys.stderr.flush()
        os.write(2, f"{end.code}\n".encode(errors="backslashreplace"))
        raise SystemExit(1) from None
    atexit._run_exitfuncs()  # as Python would now; worker processes are ended by one of them
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # Python would take torch apart first, object by object, which takes up to a second


def _check_params(stage: str) -> None:
    # Only now, because this Python may lack what they are made of.
    from tasks.harness.errors import ParamsError

    before = set(sys.modules)
    try:
        import_module("tasks.params.whole").load()
    except ParamsError as error:
        sys.exit(f"{stage}: {error}")
    # What only the check needed is no code of the stage, which imports its own sections again: an edit of another
    # section must neither fail the stage nor change the key of its checkpoint.
    for name in set(sys.modules) - before:
        if name.startswith("tasks.") and not name.startswith("tasks.harness"):
            del sys.modules[name]


if __name__ == "__main__":
    main(sys.argv[1:])
