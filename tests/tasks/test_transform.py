"""transform: data/prepared as the contract says, and raw data that it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from tasks import transform
from tasks.prepared import Card, Split, SplitName
from tests.support.made import idx
from tests.support.refusal import refusal

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


def test_the_files_are_as_the_contract_says(raw: Path) -> None:
    transform.main()
    for name in SPLITS:
        images = np.load(f"data/prepared/{name}_images.npy", mmap_mode="r")
        labels = np.load(f"data/prepared/{name}_labels.npy")
        assert (images.dtype, images.shape[1:], images.flags.c_contiguous) == (np.uint8, (28, 28, 1), True)
        assert (labels.dtype, labels.shape) == (np.int64, (len(images),))
    card = json.loads(Path("data/prepared/dataset.json").read_text())
    assert card["schema_version"] == 1
    assert card["sizes"] == {"train": 6, "validation": 2, "test": 8}
    assert len(card["class_names"]) == 10
    assert set(card["sources"]) == {str(path.relative_to("data/raw")) for path in Path("data/raw").rglob("*ubyte")}


def test_mean_and_std_are_numpys_of_the_training_split(raw: Path) -> None:
    transform.main()
    pixels = Split.read("train").images.astype(np.float64) / 255
    assert Card.read().mean == pytest.approx([pixels.mean()], rel=1e-12)
    assert Card.read().std == pytest.approx([pixels.std()], rel=1e-12)


def test_a_label_without_a_class_is_named(raw: Path) -> None:
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([0, 1, 2, 3, 4, 5, 10, 11])))
    message = refusal()
    assert (
        "t10k-labels-idx1-ubyte: label 10 of image 6 has no class: there are 10, 0 to 9 (2 labels like it)" in message
    )


def test_test_images_must_be_as_large_as_the_training_images(raw: Path) -> None:
    (raw / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((8, 14, 14, 1), np.uint8)))
    assert "test images are (14, 14, 1), training images (28, 28, 1)" in refusal()


def test_missing_raw_data_says_what_to_run(workspace: Path) -> None:
    assert "run the stages before this one too, with dvc repro transform" in refusal()
