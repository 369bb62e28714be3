"""The folder of one's own images, before DVC looks at it.

DVC waits for ever at a FIFO, fails at a link to nothing, and does not look behind a link to a folder.
"""

import os
import stat
from pathlib import Path

from tasks.data.datasets import DATASETS
from tasks.data.folders import DEEPEST, TOO_DEEP
from tasks.harness.errors import StageError, listed, shown
from tasks.params.download import TABLE, Download

MAX_NAMED = 5
NOT_DVCS = {".git", ".hg", ".dvc"}  # folders that DVC leaves out itself


def links_to_folders(params: Download) -> list[str]:
    """List the links to folders in download.path: what changes behind them is no change to DVC.

    Raises:
        StageError: there is nothing at download.path, or something in it that DVC cannot hash.
    """
    path = Path(params.path)
    if not path.exists():
        raise StageError(
            f"download.path = {shown(params.path)}: there is nothing of that name; it is the folder of your own "
            f"images, or {TABLE} for all other datasets"
        )
    if DATASETS[params.dataset].format == "files" and not path.is_dir():
        raise StageError(
            f"download.path = {shown(params.path)} is no folder, and dataset {params.dataset} is one of your own "
            "images: -S download.path=data/inbox, for example"
        )
    links: list[str] = []
    odd: list[str] = []
    for parent, folders, files in os.walk(path):
        if len(Path(parent).relative_to(path).parts) > DEEPEST:
            raise StageError(TOO_DEEP.format(shown(parent)))
        folders[:] = [name for name in folders if name not in NOT_DVCS]
        links += [str(folder) for name in folders if (folder := Path(parent, name)).is_symlink()]
        odd += [reason for name in files if (reason := _reason(Path(parent, name)))]
    if odd:
        raise StageError(f"DVC cannot hash what is in {path}: {listed(sorted(odd), MAX_NAMED, '; ')}; take it out")
    return links


def _reason(path: Path) -> str | None:
    """Say why DVC cannot hash what is at this path, if it cannot."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return f"{shown(str(path))} cannot be followed ({error.strerror})"
    return None if regular else f"{shown(str(path))} is neither a file nor a folder"
