"""Whether a run may begin in this folder: said at once, before anything is written."""

import os
import re
import sys
from pathlib import Path

from tasks.harness import disk, section
from tasks.harness.errors import StageError
from tasks.params.download import WRITTEN


def check() -> None:
    """See that this is the project's folder, that all that is written can be, and that there is the git DVC expects.

    Raises:
        StageError: one of these is not so; the message says what to do.
        ParamsError: this is not the project's folder.
    """
    section.read()
    for name in (".", *WRITTEN, "dvc.lock"):
        place = disk.nearest(Path(name))
        if not os.access(place, os.W_OK):
            place = place.absolute()
            raise StageError(f"{place} cannot be written to: a run needs the project in a folder that is yours")
    if not in_git() and not _without_git():
        dvc = Path(sys.executable).with_name("dvc")
        raise StageError(
            "this folder is no git repository, which DVC expects. Make it one: git init && git add -A && "
            f"git commit -m start; or go without: {dvc} config core.no_scm true"
        )


def in_git() -> bool:
    """Tell whether this folder is in a git repository."""
    here = Path.cwd()
    return any((folder / ".git").exists() for folder in (here, *here.parents))


def _without_git() -> bool:
    configs = [path.read_text(encoding="utf-8") for path in Path(".dvc").glob("config*") if path.is_file()]
    return any(re.search(r"^\s*no_scm\s*=\s*true\s*$", text, re.MULTILINE | re.IGNORECASE) for text in configs)
