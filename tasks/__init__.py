"""The pipeline's five stages, one module each, and what they share.

DVC runs a stage with whichever `python` stands first on the PATH. This package is imported before any stage, so it
refuses the wrong one with a sentence instead of an ImportError.
"""

import gc
import os
import sys
from importlib.util import find_spec

missing = [name for name in ("numpy", "onnxruntime", "pooch", "pydantic", "ruamel", "torch") if find_spec(name) is None]
if missing or not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(
        f"tasks: {sys.executable or 'this Python'} (Python {sys.version.split()[0]}) cannot run the stages: "
        + (f"it lacks {', '.join(missing)}" if missing else "they need Python 3.11, 3.12 or 3.13")
        + ".\nPut the project's own Python first on the PATH: PATH=.venv/bin:$PATH dvc repro (make run does it itself)."
    )

# Only now, because they may need what is missing, but before a stage's own imports, which take seconds.
from tasks import inputs as inputs  # noqa: E402  # it notes what the code is that will be imported
from tasks import lifeline  # noqa: E402

# `python -m tasks.<stage>`: argv[0] is "-m" until the module that is to run has been found.
_module = sys.orig_argv[sys.orig_argv.index("-m") + 1] if sys.argv[0] == "-m" and "-m" in sys.orig_argv else ""
if _module.startswith("tasks."):
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "1"  # it would look for them in every package that is installed
    gc.disable()  # a tenth of the time that its imports take; tasks.stage.run enables it
    lifeline.attach(_module.removeprefix("tasks."))
