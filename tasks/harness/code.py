"""The project's own code: which modules there are, what was in them at the start, and which of them are in use."""

import hashlib
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("serving", "tasks")  # whose modules decide what a stage makes


def sha256(path: Path) -> str:
    """Hash what is in a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def at_start() -> dict[Path, str]:
    """Hash every module of the project, once in a process.

    The door calls it before the imports that take seconds, in which the user may edit what has been loaded already.
    """
    return {path: sha256(path) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


def loaded() -> list[Path]:
    """List the project's modules that this process has imported."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return sorted(path for path in at_start() if str(path) in files)
