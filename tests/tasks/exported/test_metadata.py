"""The metadata alone: a program that has never seen serving/ makes the same input of an image file."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from serving import model as serving_model
from serving.images import decode
from serving.model import Predictor
from tasks.exported import graph, metadata
from tasks.model.classifier import Classifier, Description, Trained

Pixels = NDArray[Any]
TURNED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}


class Deployed:
    """An application that has read the file model.onnx and nothing else; it imports nothing of ours."""

    def __init__(self, model: Path) -> None:
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.says = self.session.get_modelmeta().custom_metadata_map
        _, self.height, self.width, _ = self.session.get_inputs()[0].shape

    def __call__(self, path: Path) -> tuple[str, NDArray[np.float32]]:
        """Return the label and the probabilities `float32 [classes]` of an image."""
        (logits, probabilities) = self.session.run(None, {"images": self.input(path)})
        tempered = np.exp((logits - logits.max()) / float(self.says["temperature"]))
        np.testing.assert_allclose(probabilities, tempered / tempered.sum(), atol=1e-5)
        label: str = json.loads(self.says["class_names"])[probabilities[0].argmax()]
        return label, probabilities[0]

    def input(self, path: Path) -> Pixels:
        with Image.open(path) as image:
            self.orientation = image.getexif().get(0x0112, 1)
            pixels = np.asarray(image)
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        for step in json.loads(self.says["preprocessing"]):
            pixels = getattr(self, step)(pixels, self.says[step])
        return pixels

    def exif_orientation(self, pixels: Pixels, rule: str) -> Pixels:
        assert rule.startswith("applied")
        return TURNED[self.orientation](pixels)

    def bit_depth(self, pixels: Pixels, rule: str) -> Pixels:
        (divisor,) = re.findall(r"16-bit grey is divided by (\d+) and rounded down", rule)
        return pixels // int(divisor) if pixels.dtype == np.uint16 else pixels

    def alpha(self, pixels: Pixels, rule: str) -> Pixels:
        assert rule.startswith("composited on black")
        return rounded(pixels[..., :-1] * (pixels[..., -1:] / 255)) if pixels.shape[2] in (2, 4) else pixels

    def color_order(self, pixels: Pixels, rule: str) -> Pixels:
        rgb = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
        if rule.startswith("RGB"):
            return rgb
        assert rule.startswith("grey")
        (weights,) = re.findall(r"L = R \* (\d+)/1000 \+ G \* (\d+)/1000 \+ B \* (\d+)/1000", rule)
        return rounded(rgb @ (np.array(weights, float)[:, None] / 1000))

    def resize_box(self, pixels: Pixels, rule: str) -> Pixels:
        height, width = pixels.shape[:2]
        scale = (height / self.height, width / self.width)
        if rule.startswith("crop: the largest box of the input's proportions in the middle"):
            scale = (min(scale), min(scale))
        else:
            assert rule.startswith("stretch: the whole image")
        self.boxes = [
            ((size - new * ratio) / 2, ratio)
            for size, new, ratio in zip((height, width), (self.height, self.width), scale, strict=True)
        ]
        return pixels

    def resampling(self, pixels: Pixels, rule: str) -> Pixels:
        assert "triangle filter" in rule
        rows, columns = self.boxes
        pixels = rounded(np.einsum("ow,hwc->hoc", triangles(pixels.shape[1], self.width, *columns), pixels))
        return rounded(np.einsum("oh,hwc->owc", triangles(pixels.shape[0], self.height, *rows), pixels))

    def value_range(self, pixels: Pixels, rule: str) -> Pixels:
        assert rule.startswith("0 to 255, uint8")
        return pixels.astype(np.uint8)

    def input_layout(self, pixels: Pixels, rule: str) -> Pixels:
        assert rule.startswith("NHWC")
        return pixels[None]


def rounded(values: Pixels) -> Pixels:
    return np.floor(values + 0.5)


def triangles(old: int, new: int, start: float, scale: float) -> Pixels:
    """Return the filter's weights, `float64 [new, old]`, for a box that begins at `start`."""
    centres = start + (np.arange(new)[:, None] + 0.5) * scale
    weights = np.clip(1 - np.abs(np.arange(old) + 0.5 - centres) / max(scale, 1), 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def describe(image_shape: list[int], resize: str) -> Description:
    nothing: dict[str, Any] = dict.fromkeys(Description.__dataclass_fields__)
    dataset = Trained("photographs", {}, {}, "crop" if resize == "crop" else "stretch")
    named = {"class_names": list("abcde"), "network": "Linear", "state_dict": "sha256:", "versions": {}}
    return Description(**nothing | named | {"image_shape": image_shape, "dataset": dataset})


def export(channels: int, resize: str) -> Path:
    """Write models/model.onnx, of weights so large that a few wrong pixels change its mind."""
    torch.manual_seed(0)
    linear = nn.Linear(20 * 30 * channels, 5)
    with torch.no_grad():
        linear.weight.mul_(5)
    network = nn.Sequential(nn.Flatten(), linear)
    proto = graph.to_onnx(Classifier(network, [0.5] * channels, [0.25] * channels), [20, 30, channels], 2)
    onnx.helper.set_model_props(proto, graph.provenance(describe([20, 30, channels], resize), 0.5, 2))
    graph.check(proto, describe([20, 30, channels], resize))
    path = Path("model.onnx")
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return path


def photograph(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Draw soft shapes with fine noise, not symmetric in any way."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(5 * x * (1 + k) + 3 * y * y + k) * 100 + 128 for k in range(channels)]
    noise = np.random.default_rng(0).normal(0, 8, (height, width, channels))
    return np.clip(np.stack(waves, axis=2) + noise, 0, 255).astype(np.uint8)


def write_photographs() -> list[Path]:
    """Write image files of other sizes and modes than the model's input."""
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        Image.fromarray(photograph(70, 83, 3)).save(f"turned {orientation}.jpg", exif=exif, quality=95)
    Image.fromarray(photograph(61, 200, 4)).save("alpha.png")
    Image.fromarray(photograph(90, 64, 2), "LA").save("grey alpha.png")
    Image.fromarray(photograph(15, 11, 3)).save("enlarged.png")
    Image.fromarray(photograph(20, 30, 3)).save("as it is.png")
    Image.fromarray(photograph(33, 34, 1)[..., 0].astype(np.uint16) * 256 + 255).save("sixteen.png")
    return sorted(Path().glob("*.jpg")) + sorted(Path().glob("*.png"))


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_from_the_metadata_alone_a_program_sees_what_serving_sees(workspace: Path, channels: int, resize: str) -> None:
    model = export(channels, resize)
    deployed, predictor = Deployed(model), Predictor(model)
    for path in write_photographs():
        image = decode(path, predictor.image_shape, predictor.resize)
        assert np.abs(deployed.input(path)[0].astype(int) - image).max() <= 1, path
        expected = predictor(image[np.newaxis])[0]
        label, probabilities = deployed(path)
        assert label == predictor.class_names[expected.argmax()], path
        np.testing.assert_allclose(probabilities, expected, atol=0.02, err_msg=str(path))


def test_what_serving_reads_is_the_schema_that_is_written() -> None:
    assert metadata.SCHEMA_VERSION == serving_model.SCHEMA_VERSION


def test_the_model_its_input_and_its_outputs_describe_themselves(exported: Path) -> None:
    proto = onnx.load(exported / "model.onnx")
    assert proto.doc_string == metadata.MODEL
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.doc_string == metadata.DOCUMENTATION[value.name]
    says = {entry.key: entry.value for entry in proto.metadata_props}
    assert set(json.loads(says["preprocessing"])) == set(metadata.STEPS)
    assert all(says[step] for step in metadata.STEPS)
