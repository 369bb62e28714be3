"""Try a model as it will be served: in a process of its own, with what stands in requirements-serving.txt and nothing
else, from a folder that holds the model and golden requests and nothing else.

Reads:  FOLDER/model.onnx, FOLDER/golden.json
Run:    python -m serving.probe FOLDER
"""

import base64
import importlib.util
import json
import resource
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.model import Predictor
from serving.session import SessionError

MODEL, GOLDEN = "model.onnx", "golden.json"
ABSENT = ("torch", "prefect", "dvc", "tasks")  # nothing of what trains is there when it serves
ROUNDS = 5  # so often is each request sent


@dataclass(frozen=True)
class Probe:
    """What came of it."""

    labels: list[int]  # of each golden request, sent alone
    together: list[int]  # of all of them, sent as one
    latency_ms: float  # of a request, the median; the first one, which warms up, is not counted
    slowest_ms: float
    memory_mb: float  # the most that the process has held
    found: list[str]  # of ABSENT


def golden(contents: dict[str, Any]) -> NDArray[np.uint8]:
    """Return the images of golden.json, `uint8 [N, H, W, C]`."""
    pixels = [np.frombuffer(base64.b64decode(one["pixels"]), np.uint8) for one in contents["requests"]]
    return np.stack([image.reshape(contents["image_shape"]) for image in pixels])


def answered(predictor: Predictor, images: NDArray[np.uint8]) -> tuple[list[int], list[int]]:
    """Return the labels of images that are sent one by one, and of the same sent as one.

    Raises:
        SessionError: see `Predictor`.
    """
    alone = [int(predictor(images[number : number + 1]).argmax()) for number in range(len(images))]
    return alone, predictor(images).argmax(1).tolist()


def probe(folder: Path, provider: str) -> Probe:
    """Answer the golden requests.

    Raises:
        SessionError: see `Predictor`.
    """
    predictor = Predictor(folder / MODEL, provider)
    images = golden(json.loads((folder / GOLDEN).read_text(encoding="utf-8")))
    labels, together = answered(predictor, images)
    seconds = []
    for _ in range(ROUNDS):
        for number in range(len(images)):
            start = time.perf_counter()
            predictor(images[number : number + 1])
            seconds.append(time.perf_counter() - start)
    return Probe(
        labels,
        together,
        statistics.median(seconds) * 1e3,
        max(seconds) * 1e3,
        peak_memory() / 2**20,
        [name for name in ABSENT if importlib.util.find_spec(name)],
    )


def peak_memory() -> int:
    """Return the most memory that this process has held, in bytes."""
    try:
        # Not what getrusage says, which on Linux counts the process that this one was forked from, too.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except FileNotFoundError:  # macOS
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    folder, provider = sys.argv[1:]
    try:
        print(json.dumps(asdict(probe(Path(folder), provider))))
    except SessionError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
