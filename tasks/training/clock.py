"""How long a training has taken, how much of its time is gone, and how long it will take."""

import time
from datetime import timedelta


class Clock:
    """How long the training has taken, in all runs of it, and how much of the time that it may take.

    Args:
        max_minutes: for the batches and the validations of all epochs; None: any time.
    """

    def __init__(self, max_minutes: float | None) -> None:
        self.limit_s = max_minutes * 60 if max_minutes else None
        self.go_on(0.0, 0.0)

    def go_on(self, seconds: float, validation_s: float) -> None:
        """Go on from what they were when a run was stopped."""
        self._zero = time.monotonic() - seconds
        self.validation_s = validation_s  # what the last validation took, and the next one will

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._zero

    def share(self) -> float | None:
        """Return which share of the time for batches is gone, above 1 when it is more than that; None without limit."""
        if self.limit_s is None:
            return None
        return self.seconds / max(self.limit_s - self.validation_s, 1e-9)


class Pace:
    """How fast this process trains, and how long it will take, validations included.

    Args:
        batch_size: over all processes.
        batches: how many are done at its start.
    """

    def __init__(self, batch_size: int, batches: int) -> None:
        self.batch_size = batch_size
        self.batches = batches
        self.started = time.monotonic()

    def images_per_s(self, batches: int) -> float:
        """Return how many images were learned from in a second, now that so many batches are done."""
        return (batches - self.batches) * self.batch_size / (time.monotonic() - self.started)

    def __call__(self, batches: int, left: float, clock: Clock) -> str:
        """Describe it, now that so many batches are done and so many are left."""
        speed = self.images_per_s(batches)
        seconds = left * self.batch_size / max(speed, 1e-9)
        if clock.limit_s:
            seconds = min(seconds, max(clock.limit_s - clock.seconds, 0))
        return f"{speed:,.0f} images/s, {timedelta(seconds=round(seconds))} to go"
