"""Which images are held out, and that writing them takes no memory."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tasks import transform
from tasks.data import archives, splits
from tests.support.made import idx, made_images
from tests.support.params import write_params
from tests.support.refusal import refusal


def test_the_held_out_images_are_stratified_and_depend_on_the_seed() -> None:
    labels = np.repeat(np.arange(3), (100, 50, 10))
    held_out = splits.hold_out(labels, 0.1, seed=0)
    assert np.bincount(labels[held_out]).tolist() == [10, 5, 1]
    assert np.array_equal(held_out, splits.hold_out(labels, 0.1, seed=0))
    assert not np.array_equal(held_out, splits.hold_out(labels, 0.1, seed=1))


def test_memory_does_not_grow_with_the_dataset(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "CHUNK_BYTES", 1 << 20)

    def peak(count: int) -> int:
        images, labels = made_images(count)
        (raw / "train-images-idx3-ubyte").write_bytes(idx(images))
        (raw / "train-labels-idx1-ubyte").write_bytes(idx(labels))
        del images, labels
        tracemalloc.start()
        transform.main()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak(2000)  # loads what the first call loads
    # Labels and masks do grow, by a few bytes an image of 784.
    assert peak(10_000) < 1.2 * peak(2000)


def test_an_empty_split_is_refused(raw: Path) -> None:
    write_params(transform={"validation_fraction": 0.01})
    assert "the validation split would be empty: 8 training images, transform.validation_fraction = 0.01" in refusal()
