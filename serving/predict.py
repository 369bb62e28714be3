"""Classify image files with the ONNX model alone.

Reads:  models/model.onnx (or --model), image files
Run:    python -m serving.predict IMAGE...
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.images import ImageError, Resize, decode
from serving.session import SessionError, open_session

TOP = 3


class Predictor:
    """models/model.onnx, ready to classify."""

    def __init__(self, model: Path, provider: str = "auto") -> None:
        """Open the model.

        Raises:
            SessionError: there is no such file, it is no model of this pipeline, or `provider` cannot run it.
        """
        if not model.is_file():
            raise SessionError(f"{model} does not exist: make run trains it, dvc checkout or dvc pull bring it back")
        self.session = open_session(model, provider)
        metadata = self.session.get_modelmeta().custom_metadata_map
        if "class_names" not in metadata:
            raise SessionError(f"{model} has no class names in its metadata: it was not exported by this pipeline")
        self.class_names: list[str] = json.loads(metadata["class_names"])
        self.resize: Resize = "crop" if metadata.get("resize") == "crop" else "stretch"
        _, height, width, channels = self.session.get_inputs()[0].shape
        self.image_shape: tuple[int, int, int] = (height, width, channels)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities, `float32 [N, classes]`, of images `uint8 [N, H, W, C]`."""
        (probabilities,) = self.session.run(["probabilities"], {"images": images})
        return np.asarray(probabilities)


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
        (probabilities,) = predictor(image[np.newaxis])
        best = [f"{predictor.class_names[k]} {probabilities[k]:.1%}" for k in np.argsort(-probabilities)[:TOP]]
        print(f"{path}: {best[0]}  (then {', '.join(best[1:])})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
