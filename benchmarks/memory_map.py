"""Training from the memory map against training on the same images in memory, epoch by epoch in turn.

Prints the images per second of each, and the most memory of its own that the first took: no pages of files.

Reads:  params.yaml, data/prepared/
Run:    python -m benchmarks.memory_map EPOCHS
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.training_loop import first_epoch
from tasks.harness import section
from tasks.model.classifier import Architecture, build
from tasks.model.determinism import set_up
from tasks.params.train import Train, options
from tasks.prepared import Card, Split
from tasks.training.state import Training

EVERY = 5  # batches


def main() -> None:
    params = section.load(Train)
    device = set_up(params.threads, params.seed)
    card, mapped = Card.read(), Split.read("train")
    peak = 0.0
    batch = 0

    def watch() -> None:
        nonlocal peak, batch
        batch += 1
        if batch % EVERY == 0:
            peak = max(peak, own_mb())

    def training(split: Split) -> Training:
        classifier = build(
            Architecture(
                params.network,
                options(params),
                card.class_names,
                card.image_shape,
                card.mean,
                card.std,
                flip_at_test=False,
            )
        ).to(device)
        return Training(classifier, split, len(card.class_names), params, device)

    def speed(of: Training) -> float:
        started = time.perf_counter()
        first_epoch(of, watch)
        return len(mapped.labels) / (time.perf_counter() - started)

    from_map = training(mapped)
    speed(from_map)  # the file is in the page cache then
    own, pairs = peak, []
    if epochs := int(sys.argv[1]):
        in_memory = training(Split(np.array(mapped.images), mapped.labels))
        speed(in_memory)
        pairs = [(speed(from_map), speed(in_memory)) for _ in range(epochs)]
    print(json.dumps({"pairs": pairs, "own_mb": own}))


def own_mb() -> float:
    """Return the anonymous memory of this process, which no file backs; Linux only."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1000


if __name__ == "__main__":
    main()
