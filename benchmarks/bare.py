"""What a server can at best do: run the model in a loop, in one thread, and count images per CPU-second.

Run:    python -m benchmarks.bare MODEL BATCH_SIZE [IMAGE_FILE]
"""

import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.rate import rate
from serving.model import Predictor
from serving.session import CPU

SECONDS = 1.5


def main() -> None:
    model, batch_size, *file = sys.argv[1:]
    predictor = Predictor(Path(model), CPU, threads=1)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (int(batch_size), *predictor.image_shape), np.uint8)
    run = predictor.session.run

    def answer() -> None:
        run(None, {"images": images})

    def decode_and_answer() -> None:
        run(None, {"images": predictor.image(Path(file[0]))[np.newaxis]})

    call = decode_and_answer if file else answer
    rate(call, SECONDS, time.process_time)  # it warms up
    print(int(batch_size) * rate(call, SECONDS, time.process_time))


if __name__ == "__main__":
    main()
