"""What the server says to whoever runs it. Where nobody listens any more it goes on answering, and says nothing."""

import os
import sys
from typing import TextIO

from serving.files import printable


def say(text: str) -> None:
    """Say a line on the standard output."""
    write(f"serve: {printable(text)}", sys.stdout)


def complain(text: str) -> None:
    """Say a line on the standard error."""
    write(f"serve: {printable(text)}", sys.stderr)


def write(text: str, stream: TextIO) -> None:
    """Print to a stream that may have no reader, or lie on a disk that is full."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what is left in its buffer has to go somewhere
    except OSError:
        pass
