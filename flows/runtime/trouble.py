"""What to say of an error of the system, where the sentence is all that a person gets."""

import errno
import tempfile
from pathlib import Path

from serving.champion import registry
from tasks.harness import disk
from tasks.harness.errors import of_system

FULL = (errno.ENOSPC, errno.EDQUOT)


def said(error: Exception) -> str:
    """Say what is wrong, and with which file, or of those disks that are written to which one is full."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno in FULL:
        places = (Path(), Path(".cache"), registry(), Path(tempfile.gettempdir()))
        free_mb, place = min((disk.free_mb(place), place) for place in map(Path.absolute, places))
        return f"the disk is full ({free_mb:.0f} MB free in {place}): make room"
    return of_system(error)
