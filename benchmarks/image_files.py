"""Decoding of image files by transform against Pillow alone on as many threads, in images per second.

Reads:  data/raw/, as download leaves it for dataset folder
Run:    python -m benchmarks.image_files PAIRS
"""

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from tasks import image_files, params
from tasks.stock import Stock


def main() -> None:
    p = params.load().transform
    stock = Stock.read()
    paths = [Path(stock.root) / item.path for item in stock.items]
    height, width = p.image_size

    def bare(path: Path) -> None:
        with Image.open(path) as image:
            np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))

    def alone() -> None:
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(bare, paths):
                pass

    def ours() -> None:
        dataset = image_files.read(p)
        for source in filter(None, (dataset.training, dataset.validation, dataset.test)):
            for _ in source.chunks():
                pass

    ours()
    alone()  # the files are in the page cache then
    pairs = [(len(paths) / seconds(ours), len(paths) / seconds(alone)) for _ in range(int(sys.argv[1]))]
    print(json.dumps(pairs))


def seconds(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
