"""What lies in data/raw and data/prepared and no stage has made: it is somebody's, and both are replaced as a whole."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from tasks.data.datasets import DATASETS, RAW
from tasks.harness.errors import StageError, listed
from tasks.prepared import FOLDER as PREPARED
from tasks.prepared import SPLITS

MAX_NAMED = 5
# Finder leaves the one in each folder that it shows, a DVC that was killed the other in each that it was filling.
NOBODYS = re.compile(r"\.DS_Store|\.[\w-]{22}\.tmp")


def check(*folders: Path) -> None:
    """See that nobody loses a file when `folders`, or else both, are replaced.

    Raises:
        StageError: somebody would.
    """
    for folder in folders or (RAW, PREPARED):
        if found := sorted(_strangers(folder)):
            raise StageError(
                f"{folder} holds {listed([*map(repr, found)], MAX_NAMED)}, which no run has made, and a run would "
                "remove: move it; data/inbox is a place for your own images"
            )


def _strangers(root: Path) -> Iterator[str]:
    """Yield, below `root`, each file that no stage makes, and each folder in which none makes one."""
    files = _made(root)
    folders = {parent for file in files for parent in file.parents}
    for parent, below, names in os.walk(root):
        here = Path(parent).relative_to(root)
        links = {name for name in below if Path(parent, name).is_symlink()}
        yield from (
            str(here / name) for name in (*names, *links) if here / name not in files and not NOBODYS.fullmatch(name)
        )
        yield from (str(here / name) for name in below if here / name not in folders and name not in links)
        below[:] = [name for name in below if here / name in folders]  # a stranger is named without what is in it


def _made(root: Path) -> set[Path]:
    if root == PREPARED:
        parts = ("images.npy", "labels.npy", "files.csv")
        return {Path("dataset.json"), *(Path(f"{split}_{part}") for split in SPLITS for part in parts)}
    return {Path("stock.json"), Path("images.csv"), *(path for row in DATASETS.values() for path in row.files())}
