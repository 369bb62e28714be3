"""Whether a run may begin in this folder: said at once, before anything is written."""

import os
import re
import sys
from pathlib import Path

from tasks.data.datasets import DATASETS, RAW
from tasks.harness import section
from tasks.harness.errors import StageError
from tasks.params.download import WRITTEN
from tasks.prepared import FOLDER as PREPARED
from tasks.prepared import SPLITS

# What the stages make in the two folders that are outputs as a whole: all else in them is somebody's.
MADE = {
    RAW: {
        "stock.json",
        "images.csv",
        *(Path(row.folder).parts[0] for row in DATASETS.values() if row.folder),
        *(archive.name for row in DATASETS.values() for archive in row.archives),  # beside the folder, some of them
    },
    PREPARED: {
        "dataset.json",
        *(f"{split}_{part}" for split in SPLITS for part in ("images.npy", "labels.npy", "files.csv")),
    },
}
MAX_NAMED = 5
BY_THE_SYSTEM = {".DS_Store"}  # Finder leaves one in each folder that it shows


def check() -> None:
    """See that this is the project's folder, that all that is written can be, and that there is the git DVC expects.

    Raises:
        StageError: one of these is not so; the message says what to do.
        ParamsError: this is not the project's folder.
    """
    section.read()
    for name in (".", *WRITTEN, "dvc.lock"):
        if Path(name).exists() and not os.access(name, os.W_OK):
            place = Path(name).absolute()
            raise StageError(f"{place} cannot be written to: a run needs the project in a folder that is yours")
    if not in_git() and not _without_git():
        dvc = Path(sys.executable).with_name("dvc")
        raise StageError(
            "this folder is no git repository, which DVC expects. Make it one: git init && git add -A && "
            f"git commit -m start; or go without: {dvc} config core.no_scm true"
        )


def check_outputs() -> None:
    """See that a run removes nothing that no run has made.

    Raises:
        StageError: it would.
    """
    for folder, made in MADE.items():
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        if strangers := sorted(names - made - BY_THE_SYSTEM):
            named = ", ".join(map(repr, strangers[:MAX_NAMED])) + (" and more" if len(strangers) > MAX_NAMED else "")
            raise StageError(
                f"{folder} holds {named}, which no run has made, and a run would remove: move it; "
                "data/inbox is a place for your own images"
            )


def in_git() -> bool:
    """Tell whether this folder is in a git repository."""
    here = Path.cwd()
    return any((folder / ".git").exists() for folder in (here, *here.parents))


def _without_git() -> bool:
    configs = [path.read_text(encoding="utf-8") for path in Path(".dvc").glob("config*") if path.is_file()]
    return any(re.search(r"^\s*no_scm\s*=\s*true\s*$", text, re.MULTILINE | re.IGNORECASE) for text in configs)
