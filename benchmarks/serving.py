"""ONNX Runtime against eager PyTorch: the same graph from uint8 to probabilities, in images per second.

Reads:  params.yaml, data/prepared/, models/
Run:    python -m benchmarks.serving BATCH_SIZE PAIRS
"""

import json
import sys

import torch

from benchmarks.rate import rate
from serving.session import CPU, open_session
from tasks.export import ONNX
from tasks.exported.graph import WithProbabilities
from tasks.harness import section
from tasks.model import classifier
from tasks.model.determinism import set_up
from tasks.params.train import Train
from tasks.prepared import Split

SECONDS = 0.5  # that each side of a pair runs for, at least


def main() -> None:
    batch_size, pairs = map(int, sys.argv[1:])
    set_up(section.load(Train).threads)
    images = Split.read("test").images[:batch_size]
    tensor = torch.from_numpy(images)
    model = WithProbabilities(classifier.load()[0], 1).eval()
    session = open_session(ONNX, CPU, torch.get_num_threads())

    def eager() -> None:
        with torch.inference_mode():
            model(tensor)

    def runtime() -> None:
        session.run(None, {"images": images})

    rate(eager, SECONDS), rate(runtime, SECONDS)  # they warm up
    rates = [(batch_size * rate(runtime, SECONDS), batch_size * rate(eager, SECONDS)) for _ in range(pairs)]
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
