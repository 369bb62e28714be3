"""Image files: made ones to decode, and how fast Pillow alone decodes them on as many threads, in images per second.

Reads:  data/raw/, as download leaves it for dataset folder
Run:    python -m benchmarks.image_files
"""

import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.data.stock import Stock
from tasks.harness import section
from tasks.params.transform import Transform

SIDE = 256  # pixels
AT_A_TIME = 256  # files


def main() -> None:
    stock = Stock.read()
    height, width = section.load(Transform).image_size

    def decode(path: Path) -> None:
        with Image.open(path) as image:
            np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))

    count = 0
    started = time.perf_counter()
    with ThreadPoolExecutor() as pool:
        for paths in _parts(Path(stock.root) / item.path for item in stock.items):
            count += len(list(pool.map(decode, paths)))
    print(count / (time.perf_counter() - started))


def _parts(paths: Iterator[Path]) -> Iterator[list[Path]]:
    while part := list(islice(paths, AT_A_TIME)):
        yield part


def make(inbox: Path, count: int) -> None:
    """Make `count` different JPEG files in two classes, smooth as photographs are."""
    for label in ("0", "1"):
        (inbox / label).mkdir(parents=True, exist_ok=True)

    def draw(number: int) -> None:
        coarse = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        (inbox / str(number % 2) / f"{number}.jpg").write_bytes(buffer.getvalue())

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(draw, range(count)):
            pass


if __name__ == "__main__":
    main()
