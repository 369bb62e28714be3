"""Whether this Python can run the project: asked by both doors, before anything that it may lack is imported."""

import sys
from importlib.util import find_spec

VERSIONS = ((3, 11), (3, 13))  # the oldest and the newest
PACKAGES = ("numpy", "onnxruntime", "pooch", "pydantic", "ruamel", "torch")  # one that each stage would miss


def check() -> None:
    """Exit with a sentence where this is the wrong Python: DVC takes whichever `python` stands first on the PATH."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    oldest, newest = VERSIONS
    if missing or not oldest <= sys.version_info[:2] <= newest:
        sys.exit(
            f"{sys.executable or 'this Python'} (Python {sys.version.split()[0]}) cannot run the stages: "
            + (f"it lacks {', '.join(missing)}" if missing else "they need Python 3.11, 3.12 or 3.13")
            + ".\nPut the project's own Python first on the PATH: "
            "PATH=.venv/bin:$PATH dvc repro (make run does it itself)."
        )
