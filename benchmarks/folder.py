"""Classify a folder with Pillow and ONNX Runtime alone, in images per second: what batch prediction is compared with.

The model is the shipped network for colour images of 64 x 64, untrained, as that takes as long. It runs as many batches
at a time, of as many images, as serving/folder/run.py would.

Reads:  FOLDER, of JPEG files as benchmarks/image_files.py makes them, and MODEL, as `make` does
Run:    python -m benchmarks.folder FOLDER MODEL
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import torch
from PIL import Image

from serving.folder.run import BATCH, cores
from serving.session import CPU, open_session
from tasks.exported.graph import to_onnx
from tasks.exported.metadata import preprocessing
from tasks.harness import section
from tasks.model.classifier import Classifier
from tasks.networks.cnn import Cnn
from tasks.params.train import Train

SHAPE = (64, 64, 3)
CLASSES = ["even", "odd"]


def main() -> None:
    folder, model = map(Path, sys.argv[1:])
    session = open_session(model, CPU, threads=1)
    paths = [str(path) for path in folder.rglob("*.jpg")]

    def classify(batch: list[str]) -> None:
        images = []
        for path in batch:
            with Image.open(path) as image:
                images.append(np.asarray(image.convert("RGB").resize(SHAPE[:2], Image.Resampling.BILINEAR)))
        session.run(None, {"images": np.stack(images)})

    started = time.perf_counter()
    with ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(classify, (paths[start : start + BATCH] for start in range(0, len(paths), BATCH))):
            pass
    print(len(paths) / (time.perf_counter() - started))


def make(path: Path) -> None:
    """Make the model, of the network that params.yaml describes."""
    torch.manual_seed(0)
    network = Cnn(SHAPE, len(CLASSES), **section.load(Train).cnn.model_dump())
    exported = to_onnx(Classifier(network, [0.0] * 3, [1.0] * 3).eval(), list(SHAPE), 1)
    metadata = {**preprocessing(list(SHAPE), "stretch"), "class_names": json.dumps(CLASSES)}
    onnx.helper.set_model_props(exported, metadata)
    path.write_bytes(exported.SerializeToString())


if __name__ == "__main__":
    main()
