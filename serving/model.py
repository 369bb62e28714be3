"""models/model.onnx as a classifier: opened, checked against the contract that `export` keeps, and run."""

import json
import reprlib
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serving.images import MAX_SIDE, Resize, decode
from serving.proof import prove
from serving.session import SessionError, one_line, open_session

OUTPUTS = ("logits", "probabilities")  # float32 [batch, classes]
SCHEMA_VERSION = "1"  # of the metadata: which steps from a file to the input it stands for


class Predictor:
    """models/model.onnx, ready to classify."""

    def __init__(self, model: Path, provider: str = "auto", *, threads: int = 0, content: bytes | None = None) -> None:
        """Open the model.

        Args:
            threads: on the CPU; 0 lets ONNX Runtime choose.
            content: of the file, if it was read already.

        Raises:
            SessionError: there is no such file, it is no model of this pipeline, or `provider` cannot run all of it.
        """
        self.model = model
        self.session = open_session(
            model if content is None else content, provider, threads, record_nodes=True, name=model
        )
        self.provider: str = self.session.get_providers()[0]
        self.nodes = prove(self.session, self.provider)  # of the optimised graph, all of them run by `provider`
        try:
            # As ONNX Runtime gives them: a string that is not UTF-8 is a ValueError, too.
            metadata = self.session.get_modelmeta().custom_metadata_map
            self.class_names = _class_names(metadata)
            self.resize = _resize(metadata)
            self.image_shape = _image_shape(self.session)
            _check_outputs(self.session, len(self.class_names))
        except ValueError as error:
            raise SessionError(f"{model} is no model of this pipeline: {error}") from None

    def image(self, path: Path, content: bytes | None = None) -> NDArray[np.uint8]:
        """Read an image file, of any size and mode, as `uint8 [H, W, C]`: the pixels that training saw.

        Args:
            content: of the file, if it was read already; `path` is then but what errors call it.

        Raises:
            ImageError: it is none that can be classified.
        """
        return decode(path, self.image_shape, self.resize, content)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities, `float32 [N, classes]`, of images `uint8 [N, H, W, C]`.

        The model itself divides its logits by `temperature` in its metadata first: "1" where it is not calibrated.

        Raises:
            SessionError: the model does not run, or what it returns is no such array.
        """
        probabilities = self.outputs(images)["probabilities"]
        if not np.isfinite(probabilities).all():
            raise SessionError(f"{self.model} returned probabilities that are not finite")
        return probabilities

    def outputs(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Return the logits and the probabilities of images, which may not be finite; see `__call__`."""
        try:
            found = dict(zip(OUTPUTS, self.session.run(OUTPUTS, {"images": images}), strict=True))
        except Exception as error:  # ONNX Runtime's own exceptions have no common base below Exception
            raise SessionError(f"{self.model} failed on images {images.shape}: {one_line(error)}") from None
        expected = (len(images), len(self.class_names))
        for name, values in found.items():
            if values.shape != expected:
                raise SessionError(f"{self.model} returned {name} {values.shape} instead of {expected}")
        return found


def _class_names(metadata: dict[str, str]) -> list[str]:
    if (version := metadata.get("schema_version")) != SCHEMA_VERSION:
        raise ValueError(
            f"schema_version of its metadata is {reprlib.repr(version)}, this code reads {SCHEMA_VERSION!r}; "
            "dvc repro export writes it anew"
        )
    text = metadata.get("class_names", "")
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise ValueError(f"class_names of its metadata is {reprlib.repr(text)}, not a JSON list of strings")
    return names


def _resize(metadata: dict[str, str]) -> Resize:
    match found := metadata.get("resize"):
        case "stretch" | "crop":
            return found
        case _:
            raise ValueError(f"resize of its metadata is {reprlib.repr(found)}, not stretch or crop")


def _image_shape(session: onnxruntime.InferenceSession) -> tuple[int, int, int]:
    """Return (H, W, C), before which nothing of that size has been allocated."""
    inputs = [(value.name, value.type, *value.shape) for value in session.get_inputs()]
    match inputs:
        # ONNX Runtime gives a size that is open as its name, or as None.
        case [("images", "tensor(uint8)", str() | None, int(height), int(width), 1 | 3 as channels)]:
            if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
                raise ValueError(f"its input is {height} x {width} pixels; a side has 1 to {MAX_SIDE}")
            return height, width, channels
    raise ValueError(
        f"its inputs are {reprlib.repr(inputs)}, not images, tensor(uint8) [batch, height, width, 1 or 3] alone"
    )


def _check_outputs(session: onnxruntime.InferenceSession, classes: int) -> None:
    outputs = [(value.name, value.type, *value.shape) for value in session.get_outputs()]
    match outputs:
        case [
            ("logits", "tensor(float)", str() | None, int(logits)),
            ("probabilities", "tensor(float)", str() | None, int(probabilities)),
        ] if logits == probabilities == classes:
            return
    raise ValueError(
        f"its outputs are {reprlib.repr(outputs)}, not logits and probabilities, tensor(float) [batch, {classes}], "
        f"for its {classes} class names"
    )
