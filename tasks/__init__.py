"""The pipeline's five stages, one module each, and what they share.

DVC runs a stage with whichever `python` stands first on the PATH. This package is imported before any stage, so it
refuses the wrong one with a sentence instead of an ImportError.
"""

import sys
from importlib.util import find_spec

missing = [name for name in ("numpy", "onnxruntime", "pooch", "pydantic", "ruamel", "torch") if find_spec(name) is None]
if missing or not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(
        f"tasks: {sys.executable or 'this Python'} (Python {sys.version.split()[0]}) cannot run the stages: "
        + (f"it lacks {', '.join(missing)}" if missing else "they need Python 3.11, 3.12 or 3.13")
        + ".\nPut the project's own Python first on the PATH: PATH=.venv/bin:$PATH dvc repro (make run does it itself)."
    )
