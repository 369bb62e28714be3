"""Means and standard deviations of pixels, of each image and of many; exact, because they sum integers."""

import numpy as np
from numpy.typing import NDArray

from tasks.prepared import Images

Sums = NDArray[np.uint64]


def pixel_sums(images: Images) -> tuple[Sums, Sums]:
    """Sum the values of each image `uint8 [n, H, W, C]` and their squares, by channel: two `uint64 [n, C]`, exact."""
    count, height, width, channels = images.shape
    rows = images.reshape(count, height, width * channels)  # adds whole rows: long runs of neighbours in memory
    sums = rows.sum(1, dtype=np.uint32)
    squares = np.square(rows, dtype=np.uint16).sum(1, dtype=np.uint32)
    shape = (count, width, channels)
    return sums.reshape(shape).sum(1, dtype=np.uint64), squares.reshape(shape).sum(1, dtype=np.uint64)


class Moments:
    """Per-channel mean and standard deviation of uint8 images scaled to [0, 1]; exact, because it sums integers."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.sums = [0] * channels
        self.squares = [0] * channels

    def add(self, pixels: int, sums: Sums, squares: Sums) -> None:
        """Take in images of so many pixels each; see `pixel_sums`."""
        self.count += pixels * len(sums)
        self.sums = [total + int(more) for total, more in zip(self.sums, sums.sum(0), strict=True)]
        self.squares = [total + int(more) for total, more in zip(self.squares, squares.sum(0), strict=True)]

    def mean(self) -> list[float]:
        return [total / self.count / 255 for total in self.sums]

    def std(self) -> list[float]:
        variances = [
            (square * self.count - total**2) / self.count**2
            for total, square in zip(self.sums, self.squares, strict=True)
        ]
        return [variance**0.5 / 255 for variance in variances]


def deviations(pixels: int, sums: Sums, squares: Sums) -> NDArray[np.float64]:
    """Return the standard deviation of each image of so many pixels in grey levels, `[n, C]`; see `pixel_sums`."""
    return np.sqrt(np.maximum(0, squares / pixels - (sums / pixels) ** 2))
