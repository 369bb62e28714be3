"""The disk that a path lies on, or will lie on."""

import shutil
from pathlib import Path


def nearest(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    return next(place for place in (path, *path.parents) if place.exists())


def free_mb(path: Path) -> float:
    """Return how much room there is for `path`, in 10^6 bytes."""
    return shutil.disk_usage(nearest(path)).free / 1e6
