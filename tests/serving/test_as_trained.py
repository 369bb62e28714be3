"""From image file to label: as training reads files and the .pth model answers, and as serving does, by every door."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from serving.folder.run import run
from serving.model import Predictor
from tasks import download, evaluate, export, train, transform
from tasks.model import classifier
from tasks.model.batches import predict
from tasks.prepared import Split, SplitName, names
from tests.support.params import write_params

INBOX = Path("data/inbox")
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
SIZES = ((1, 1), (3, 200), (200, 3), (8, 12), (12, 8), (97, 61), (400, 300))
TURNED = Image.Exif()
TURNED[0x0112] = 5  # mirrored, and turned by 90 degrees


def photo(height: int, width: int, mode: str, bright: bool) -> Image.Image:
    """Make an image of a mode, of random colours, bright ones or dark ones."""
    channels = {"I;16": 1, "RGBA": 4, "LA": 4}.get(mode, 3)
    dtype = np.uint16 if mode == "I;16" else np.uint8
    half = (np.iinfo(dtype).max + 1) // 2
    shape = (height, width, channels) if channels > 1 else (height, width)
    noise = np.random.default_rng(height * 1000 + width).integers(0, half, shape, dtype)
    image = Image.fromarray(noise + np.array(half * bright, dtype))
    return image if mode == image.mode else image.convert(mode)


# By the suffix: the modes that the format has, and options of Pillow's.
KINDS: list[tuple[str, str, dict[str, Any]]] = [
    *((".png", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    (".png", "P", {"transparency": 3}),
    (".png", "RGB", {"transparency": (0, 0, 0)}),
    *((".jpg", mode, {}) for mode in ("L", "RGB", "CMYK")),
    (".jpeg", "RGB", {"exif": TURNED}),
    (".webp", "RGB", {"exif": TURNED}),
    (".webp", "RGBA", {"lossless": True}),
    *((".bmp", mode, {}) for mode in ("1", "L", "P", "RGB")),
]


def fill() -> None:
    for number, (suffix, mode, options) in enumerate(KINDS):
        for height, width in SIZES:
            path = INBOX / ("cat" if (number + height) % 2 else "dog") / f"{number}-{height}x{width}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo(height, width, mode, path.parent.name == "cat").save(path, **options)


@pytest.mark.parametrize(("channels", "resize"), [(1, "stretch"), (3, "crop")])
def test_all_labels_are_those_of_training_for_any_size_and_mode(channels: int, resize: str, workspace: Path) -> None:
    fill()
    write_params(
        download={"dataset": "folder"},
        transform={"image_size": [8, 12], "channels": channels, "resize": resize, "on_leak": "allow"},
        train={"epochs": 4, "learning_rate": 0.1},
    )
    for stage in (download, transform, train, evaluate, export):
        stage.main()
    trained, description = classifier.load()
    logits = {
        (split, index): row
        for split in SPLITS
        for index, row in enumerate(predict(trained, Split.read(split), 8, torch.device("cpu")).numpy())
    }
    expected = {
        path: (logits[image], description.class_names[logits[image].argmax()])
        for image, path in names(set(logits)).items()
    }
    assert len(expected) == len(KINDS) * len(SIZES)
    assert len({label for _, label in expected.values()}) == 2

    predictor = Predictor(Path("models/model.onnx"))
    for path, (row, label) in expected.items():
        file = INBOX / path
        for image in (predictor.image(file), predictor.image(Path("upload"), file.read_bytes())):
            found = predictor.outputs(image[np.newaxis])
            assert predictor.class_names[found["probabilities"].argmax()] == label, path
            np.testing.assert_allclose(found["logits"][0], row, atol=1e-4, err_msg=path)
    run(predictor, "", INBOX, Path("labels.csv"))
    with Path("labels.csv").open(newline="", encoding="utf-8") as table:
        assert {row["path"]: row["label"] for row in csv.DictReader(table)} == {
            path: label for path, (_, label) in expected.items()
        }
