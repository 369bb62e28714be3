"""How often a set of test images has been looked at to judge a model.

A test that is looked at again and again finds a winner by accident in the end: Dwork et al., The Reusable Holdout,
Science 349(6248), 2015. So the looks are counted, and the count begins anew when enough of the images are new.

models/registry/looks-<dataset>.npz: `digests`, uint64 [N], of the test images at the first look, and `looks`, how many
"""

import zipfile
from pathlib import Path

import numpy as np

from flows.promotion.history import locked, make_folder
from tasks.gates.drift import Digests
from tasks.harness.replacing import replacing

NEW = 0.25  # of the images: with so many the count begins anew
MANY = 50


def count(root: Path, dataset: str, digests: Digests) -> int:
    """Count one more look at the test images of a dataset, which have these digests; return how many there have been.

    Raises:
        StageError: another process has held the count for long.
    """
    make_folder(root)
    path = root / f"looks-{dataset}.npz"
    with locked(root, f"counts looks in {root}"):
        first, looks = _read(path)
        if np.isin(digests, first, invert=True).mean() >= NEW:
            first, looks = digests, 0
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, digests=first, looks=looks + 1)
    return looks + 1


def _read(path: Path) -> tuple[Digests, int]:
    """Return the images of the count, and the count; none where the file is missing or damaged."""
    try:
        with np.load(path) as found:
            return found["digests"], int(found["looks"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return np.empty(0, np.uint64), 0
