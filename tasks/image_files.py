"""Read the images that `download` has taken stock of: decoded on all cores, a few at a time."""

import hashlib
import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from math import prod
from pathlib import Path

import numpy as np

from serving import images as image_file
from serving.images import ImageError
from tasks import params, raw
from tasks.datasets import RAW
from tasks.prepared import Images, Labels, SplitName
from tasks.raw import Format, Places, Raw, Source
from tasks.stage import StageError
from tasks.stock import Item, Stock

UNITS = 2**64
AT_MOST = 1024  # images of a chunk, however small they are


def read(p: params.Transform) -> Raw:
    """Open the images of data/raw/images.csv, resized as `p` says."""
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
    sources = {split: _source(stock, split, np.array(labels[split]), np.array(keys[split]), p, bad) for split in labels}
    training = sources["train"] if "train" in sources else sources[None]
    return Raw(stock.class_names, training, sources.get("test"), sources.get("validation"), bad)


def _source(
    stock: Stock,
    split: SplitName | None,
    labels: Labels,
    keys: np.ndarray[tuple[int], np.dtype[np.float64]],
    p: params.Transform,
    bad: dict[str, str],
) -> Source:
    height, width = p.image_size
    shape = (height, width, p.channels)
    formats: Counter[Format] = Counter()

    def items() -> Iterator[Item]:
        return (item for item in stock.items if item.split == split)

    def decoded(item: Item) -> tuple[Images, Format] | ImageError:
        path = Path(stock.root) / item.path
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
        return image_file.fit(image, shape, p.resize), (*image.size, image.mode)

    def chunks() -> Iterator[tuple[Images, Places]]:
        step = max(os.cpu_count() or 1, min(AT_MOST, raw.CHUNK_BYTES // prod(shape)))
        rest = enumerate(items())
        with ThreadPoolExecutor() as pool:
            # One chunk ahead: the threads decode it while the one before is checked and written.
            ahead = [(place, item, pool.submit(decoded, item)) for place, item in islice(rest, step)]
            while ahead:
                chunk, ahead = ahead, [(place, item, pool.submit(decoded, item)) for place, item in islice(rest, step)]
                images, places = [], []
                for place, item, future in chunk:
                    found = future.result()
                    if isinstance(found, ImageError):
                        bad[item.path] = str(found).removeprefix(f"{Path(stock.root) / item.path}: ")
                    else:
                        images.append(found[0])
                        places.append(place)
                        formats[found[1]] += 1
                if images:
                    yield np.stack(images), np.array(places)

    return Source(
        labels=labels,
        image_shape=shape,
        chunks=chunks,
        files=(RAW / "images.csv",),
        formats=formats,
        names=lambda: (item.path for item in items()),
        keys=keys,
    )
