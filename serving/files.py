"""Files that anyone may have named, and names that anyone may have chosen: neither may stop a program or a terminal."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading, or the one that a symbolic link leads to.

    Raises:
        OSError: it is missing or cannot be read; or it is a FIFO or socket, which would be waited for, or a device,
            which may have no end. Those are not opened.
    """
    mode = Path(path).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder the system says itself what it is
        raise OSError(errno.EINVAL, "a FIFO, socket or device; a regular file is expected", os.fspath(path))
    # Not blocking, in case that it has become a FIFO since.
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def too_many_open(error: BaseException) -> bool:
    """Tell whether an error says that no more files can be opened: the fault of the process, and not of the file."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def printable(text: str) -> str:
    """Escape what cannot be printed: a terminal would obey an escape sequence, and a line break would fake a line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
