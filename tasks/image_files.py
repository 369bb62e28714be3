"""Read the images that `download` has taken stock of: decoded on all cores, a few at a time."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path

import numpy as np

from serving.images import ImageError, decode
from tasks import params, raw
from tasks.datasets import RAW
from tasks.prepared import Images
from tasks.raw import Places, Raw, Source
from tasks.stage import StageError
from tasks.stock import Item, Stock

UNITS = 2**64


def read(p: params.Transform) -> Raw:
    """Open the images of data/raw/images.csv, resized as `p` says."""
    stock = Stock.read()
    bad: dict[str, str] = {}
    by_split = {
        split: _source([item for item in stock.items if item.split == split], stock, p, bad)
        for split in (None, "train", "validation", "test")
    }
    training = by_split["train"] or by_split[None]
    if training is None or (by_split["train"] and by_split[None]):
        raise StageError(
            f"{stock.root}: some images have a split and some have none; give one to each of them, or to none"
            if training
            else f"{stock.root}: no image is in the train split"
        )
    return Raw(stock.class_names, training, by_split["test"], by_split["validation"], bad)


def _source(items: list[Item], stock: Stock, p: params.Transform, bad: dict[str, str]) -> Source | None:
    if not items:
        return None
    height, width = p.image_size
    shape = (height, width, p.channels)
    numbers = {name: number for number, name in enumerate(stock.class_names)}

    def decoded(item: Item) -> Images | ImageError:
        path = Path(stock.root) / item.path
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StageError(f"{path}: {error.strerror}, though download has seen it; run dvc repro") from None
        if hashlib.sha256(content).hexdigest() != item.sha256:
            raise StageError(f"{path} has changed since download took stock of it; run dvc repro")
        try:
            return decode(path, shape, p.resize, content)
        except ImageError as error:
            return error

    def chunks() -> Iterator[tuple[Images, Places]]:
        step = max(os.cpu_count() or 1, raw.CHUNK_BYTES // prod(shape))
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(items), step):
                images, places = [], []
                for place, image in enumerate(pool.map(decoded, items[start : start + step]), start):
                    if isinstance(image, ImageError):
                        bad[items[place].path] = str(image)
                    else:
                        images.append(image)
                        places.append(place)
                if images:
                    yield np.stack(images), np.array(places)

    return Source(
        labels=np.array([numbers[item.label] for item in items], np.int64),
        image_shape=shape,
        chunks=chunks,
        files=(RAW / "images.csv",),
        keys=np.array([int(item.sha256[:16], 16) / UNITS for item in items]),
    )
