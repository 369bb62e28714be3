"""How far a run has come: on a terminal one line that is renewed, elsewhere, as in a log, a line a minute."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TextIO

TERMINAL_S, LOG_S = 0.2, 60.0  # between two lines
CLEAR = "\r\x1b[K"


class Progress:
    """Counts images, and tells."""

    def __init__(
        self, total: int, done: int, bad: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.done, self.bad = total, done, bad
        self._before = done  # this run began: what an earlier one did took another time
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._clock = clock
        self._start = self._told = clock()

    def add(self, images: int, bad: int) -> None:
        self.done += images
        self.bad += bad
        now = self._clock()
        if now - self._told < (TERMINAL_S if self._terminal else LOG_S):
            return
        self._told = now
        left = timedelta(seconds=round((self.total - self.done) / self.rate))
        line = f"{self.done:,} of {self.total:,} images, {self.bad:,} bad, {self.rate:,.0f} images/s, {left} left"
        print(f"{CLEAR}{line}" if self._terminal else line, end="" if self._terminal else "\n", file=self._stream)
        self._stream.flush()

    @property
    def rate(self) -> float:
        """Images per second of this run."""
        return (self.done - self._before) / max(self._clock() - self._start, 1e-9)

    def __str__(self) -> str:
        """Say what came of it."""
        bad = f"{self.bad:,} of them bad, as the column error says" if self.bad else "none of them bad"
        return f"{self.done:,} images, {bad}; {self.rate:,.0f} images/s"

    def end(self) -> None:
        """Take the line off a terminal."""
        if self._terminal:
            print(CLEAR, end="", file=self._stream, flush=True)
