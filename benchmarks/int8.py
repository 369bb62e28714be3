"""The 8-bit model against the float32 one and eager PyTorch, one thread: ratios of images per CPU-second.

Reads:  data/prepared/, models/, after make run with quantize.to: [int8]
Run:    python -m benchmarks.int8
"""

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import torch

from benchmarks.rate import rate
from serving.session import CPU, open_session
from tasks.export import ONNX
from tasks.exported.graph import WithProbabilities
from tasks.model import classifier
from tasks.model.determinism import set_up
from tasks.prepared import Split
from tasks.quantize import INT8

BATCH_SIZES = (1, 64, 1024)
ROUNDS = 7
SECONDS = 0.3  # of CPU time that each side of a round takes, at least


def main() -> None:
    set_up(threads=1)
    test = Split.read("test")
    eager = WithProbabilities(classifier.load()[0], 1).eval()
    float32, int8 = (open_session(path, CPU, threads=1) for path in (ONNX, INT8))
    for size in BATCH_SIZES:
        images = np.ascontiguousarray(test.images[:size])
        tensor = torch.from_numpy(images)
        calls: dict[str, Callable[[], object]] = {
            "int8": partial(int8.run, None, {"images": images}),
            "float32": partial(float32.run, None, {"images": images}),
            "eager": partial(eager, tensor),
        }
        with torch.inference_mode():
            rounds = [
                {name: size * rate(call, SECONDS, time.process_time) for name, call in calls.items()}
                for _ in range(ROUNDS + 1)
            ][1:]
        for other in ("float32", "eager"):
            ratios = [found["int8"] / found[other] for found in rounds]
            span = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"batch {size}: int8 has {median(ratios):.2f} ({span}) times the images per CPU-second of {other}")


if __name__ == "__main__":
    main()
