"""What to say of an error of the system, where the sentence is all that a person gets."""

import errno
import shutil
import tempfile
from pathlib import Path

from serving.champion import registry

FULL = (errno.ENOSPC, errno.EDQUOT)


def said(error: Exception) -> str:
    """Say what is wrong, and with which file, or of those disks that are written to which one is full."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno in FULL:
        places = (Path(), Path(".cache"), registry(), Path(tempfile.gettempdir()))
        free, place = min((shutil.disk_usage(_there(place)).free, place.absolute()) for place in places)
        return f"the disk is full ({free / 1e6:.0f} MB free in {place}): make room"
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


def _there(path: Path) -> Path:
    """Return the nearest folder that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
