"""Read the images that `download` has taken stock of: decoded on all cores, a few at a time."""

import hashlib
import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving import images as image_file
from serving.images import ImageError
from tasks.data.datasets import RAW
from tasks.data.item import Item
from tasks.data.source import CHUNK_BYTES, Format, Indices, Raw, Source
from tasks.data.stock import Stock
from tasks.harness.errors import StageError
from tasks.params.transform import Transform
from tasks.prepared import Images, SplitName

UNITS = 2**64
AT_MOST = 1024  # images of a chunk, however small they are

Decoded = tuple[Images, Format] | ImageError


def read(params: Transform) -> Raw:
    """Open the images of data/raw/images.csv, resized as `params` says."""
    stock = Stock.read()
    numbers = {name: number for number, name in enumerate(stock.class_names)}
    labels: dict[SplitName | None, array[int]] = defaultdict(lambda: array("q"))
    keys: dict[SplitName | None, array[float]] = defaultdict(lambda: array("d"))
    for item in stock.items:
        labels[item.split].append(numbers[item.label])
        keys[item.split].append(int(item.sha256[:16], 16) / UNITS)
    if None in labels and "train" in labels:
        raise StageError(f"{stock.root}: some images have a split and some have none; give one to each, or to none")
    if None not in labels and "train" not in labels:
        raise StageError(f"{stock.root}: no image is in the train split")
    bad: dict[str, str] = {}
    sources = {
        split: Files(stock, split, params, bad).source(np.array(labels[split]), np.array(keys[split]))
        for split in labels
    }
    training = sources["train"] if "train" in sources else sources[None]
    return Raw(stock.class_names, training, sources.get("test"), sources.get("validation"), bad)


@dataclass(frozen=True)
class Files:
    """The image files of one split."""

    stock: Stock
    split: SplitName | None
    params: Transform
    bad: dict[str, str]  # is filled with the files that cannot be read, and why, as the chunks are
    formats: Counter[Format] = field(default_factory=Counter)  # is filled likewise

    def source(self, labels: NDArray[np.int64], keys: NDArray[np.float64]) -> Source:
        return Source(
            labels=labels,
            image_shape=self.image_shape,
            chunks=self.chunks,
            files=(RAW / "images.csv",),
            formats=self.formats,
            names=lambda: (item.path for item in self.items()),
            keys=keys,
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width = self.params.image_size
        return height, width, self.params.channels

    def items(self) -> Iterator[Item]:
        return (item for item in self.stock.items if item.split == self.split)

    def chunks(self) -> Iterator[tuple[Images, Indices]]:
        """Decode the images that can be read, in order."""
        step = max(os.cpu_count() or 1, min(AT_MOST, CHUNK_BYTES // prod(self.image_shape)))
        rest = enumerate(self.items())
        with ThreadPoolExecutor() as pool:

            def submit() -> list[tuple[int, Item, Future[Decoded]]]:
                return [(index, item, pool.submit(self.decode, item)) for index, item in islice(rest, step)]

            # One chunk ahead: the threads decode it while the one before is checked and written.
            ahead = submit()
            while ahead:
                chunk, ahead = ahead, submit()
                images, indices = [], []
                for index, item, future in chunk:
                    found = future.result()
                    if isinstance(found, ImageError):
                        self.bad[item.path] = str(found).removeprefix(f"{self.path(item)}: ")
                    else:
                        images.append(found[0])
                        indices.append(index)
                        self.formats[found[1]] += 1
                if images:
                    yield np.stack(images), np.array(indices)

    def path(self, item: Item) -> Path:
        return Path(self.stock.root) / item.path

    def decode(self, item: Item) -> Decoded:
        """Return an image `uint8 [H, W, C]` and the format of its file, or why it is none.

        Raises:
            StageError: the file is not what it was when stock was taken.
        """
        path = self.path(item)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StageError(f"{path}: {error.strerror}, though download has seen it; run dvc repro") from None
        if hashlib.sha256(content).hexdigest() != item.sha256:
            raise StageError(f"{path} has changed since download took stock of it; run dvc repro")
        try:
            image = image_file.read(path, content)
        except ImageError as error:
            return error
        return image_file.fit(image, self.image_shape, self.params.resize), (*image.size, image.mode)
