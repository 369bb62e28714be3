"""Classify image files with the ONNX model alone.

Reads:  models/model.onnx (or --model), image files
Run:    python -m serving.predict IMAGE...
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from serving.images import ImageError, decode
from serving.model import Predictor
from serving.session import SessionError

TOP = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m serving.predict", description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a PNG, JPEG, WebP or BMP file")
    parser.add_argument("--model", type=Path, default=Path("models/model.onnx"))
    parser.add_argument("--provider", default="auto", help="ONNX Runtime's execution provider (default: auto)")
    arguments = parser.parse_args()
    try:
        predictor = Predictor(arguments.model, arguments.provider)
    except SessionError as error:
        sys.exit(f"predict: {error}")

    failed = 0
    for path in arguments.images:
        try:
            image = decode(path, predictor.image_shape, predictor.resize)
        except ImageError as error:
            print(f"predict: {error}", file=sys.stderr)
            failed += 1
            continue
        try:
            (probabilities,) = predictor(image[np.newaxis])
        except SessionError as error:
            sys.exit(f"predict: {error}")
        best = [f"{predictor.class_names[k]} {probabilities[k]:.1%}" for k in np.argsort(-probabilities)[:TOP]]
        print(f"{path}: {best[0]}  (then {', '.join(best[1:])})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
