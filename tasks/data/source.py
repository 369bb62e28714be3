"""Labelled images as a dataset has them before they are prepared: where `archives` and `image_files` meet `splits`."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.prepared import Images

CHUNK_BYTES = 1 << 22  # of images held at a time

Indices = NDArray[np.int64]  # [n], which images of a source these are
Format = tuple[int, int, str]  # width and height in pixels, and mode as Pillow calls it


@dataclass(frozen=True)
class Source:
    """Labelled images as their publisher ships them."""

    labels: NDArray[np.integer[Any]]  # [N]
    image_shape: tuple[int, int, int]  # [H, W, C]
    chunks: Callable[[], Iterator[tuple[Images, Indices]]]  # the images that can be read, in order: uint8 [n, H, W, C]
    files: tuple[Path, ...]
    formats: Counter[Format]  # how many images of each; of image files, once all chunks have been
    names: Callable[[], Iterator[str]] | None = None  # the paths of all, in order; None: they are not files
    keys: NDArray[np.float64] | None = None  # [N], in [0, 1), of each image's bytes; None: it is known by its index


@dataclass(frozen=True)
class Raw:
    """A raw dataset; `test` and `validation` are None where the publisher ships none."""

    class_names: list[str]
    training: Source
    test: Source | None = None
    validation: Source | None = None
    bad: dict[str, str] = field(default_factory=dict)  # file -> why it cannot be read, once all chunks have been
