"""Walk through a folder: the files that are images by their names, as they come, so that a million take no memory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serving.files import too_many_open
from serving.images import SUFFIXES


@dataclass(frozen=True)
class Found:
    """An image file, or a folder that cannot be looked into."""

    path: str  # below the folder that was walked through
    stamp: str  # size and times of a file: while it is the same, so are the pixels
    error: str | None = None  # why it cannot be looked into


def walk(root: Path) -> Iterator[Found]:
    """Yield the image files in a folder and below, in no order; hidden files and folders are left out.

    Links are followed. A folder that they lead to again is entered once: where it comes first by name, so that the
    paths are the same each time.

    Raises:
        OSError: no more files can be opened.
    """
    seen: set[str] = set()
    folders = [""]
    while folders:
        folder = folders.pop()
        if (place := os.path.realpath(root / folder)) in seen:
            continue
        seen.add(place)
        below = []
        try:
            with os.scandir(str(root / folder)) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if _is_folder(entry):
                        below.append(path)
                    elif entry.name.lower().endswith(SUFFIXES):
                        yield Found(path, _stamp(entry))
        except OSError as error:
            if too_many_open(error):
                raise
            yield Found(folder, "folder", error.strerror)
        folders += sorted(below, reverse=True)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself; whoever opens it is told so
        return False


def _stamp(entry: os.DirEntry[str]) -> str:
    try:
        status = entry.stat()
    except OSError:  # likewise
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
