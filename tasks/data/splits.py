"""Which images train, validate and test, and how the three splits are written."""

import csv
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import compress
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tasks.data.checks import Checks
from tasks.data.moments import Moments, deviations, pixel_sums
from tasks.data.source import Raw, Source
from tasks.harness.errors import StageError
from tasks.params.transform import Transform
from tasks.prepared import Labels, SplitName

GOLDEN_RATIO = 0.618033988749895  # its multiples spread evenly over [0, 1)

Mask = NDArray[np.bool_]


def assign(dataset: Raw, params: Transform) -> dict[SplitName, tuple[Source, Mask]]:
    """Say for each split which source its images come from and, `bool [N]`, which of them.

    Raises:
        StageError: a split would be empty.
    """
    training = dataset.training
    test_fraction = 0 if dataset.test else params.test_fraction
    validation_fraction = 0 if dataset.validation else params.validation_fraction
    if training.keys is None:
        test = hold_out(training.labels, test_fraction, params.seed)
        rest = np.flatnonzero(~test)
        validation = np.zeros(len(test), bool)
        validation[rest] = hold_out(training.labels[rest], validation_fraction, params.seed)
    else:
        # An image's bytes say where it belongs, so that those that are added move none of the others.
        position = (training.keys + params.seed * GOLDEN_RATIO) % 1
        test = position < test_fraction
        validation = ~test & (position < test_fraction + validation_fraction * (1 - test_fraction))
    splits: dict[SplitName, tuple[Source, Mask]] = {
        "train": (training, ~(test | validation)),
        "validation": _whole(dataset.validation) if dataset.validation else (training, validation),
        "test": _whole(dataset.test) if dataset.test else (training, test),
    }
    for name, (_, mask) in splits.items():
        if not mask.any():
            raise StageError(
                f"the {name} split would be empty: {len(training.labels)} training images, "
                f"transform.validation_fraction = {params.validation_fraction}, "
                f"transform.test_fraction = {params.test_fraction}"
            )
    return splits


def _whole(source: Source) -> tuple[Source, Mask]:
    return source, np.ones(len(source.labels), bool)


def hold_out(labels: NDArray[np.integer[Any]], fraction: float, seed: int) -> Mask:
    """Choose `fraction` of the images of each class at random; return `bool [N]`, true where one is held out."""
    generator = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        held_out[generator.permutation(members)[: round(len(members) * fraction)]] = True
    return held_out


def write_splits(
    source: Source, masks: dict[SplitName, Mask], folder: Path, moments: Moments, checks: Checks
) -> dict[SplitName, Labels]:
    """Write the images, labels and paths that each mask chooses, in their order.

    All images also go into `checks`, training images into `moments`.

    Returns:
        the labels of each split: of all images that can be read.
    """
    pixels = prod(source.image_shape[:2])
    readable = np.zeros(len(source.labels), bool)
    with ExitStack() as files:
        outputs = {split: files.enter_context((folder / f"{split}_images.npy").open("wb")) for split in masks}
        for split, mask in masks.items():
            _write_header(outputs[split], (int(mask.sum()), *source.image_shape))
        for images, indices in source.chunks():
            readable[indices] = True
            for split, mask in masks.items():
                chosen = np.ascontiguousarray(images[mask[indices]])
                outputs[split].write(chosen.data)
                sums, squares = pixel_sums(chosen)
                checks.add(split, chosen, deviations(pixels, sums, squares))
                if split == "train":
                    moments.add(pixels, sums, squares)
        labels = {split: source.labels[mask & readable].astype(np.int64) for split, mask in masks.items()}
        for split, output in outputs.items():
            output.seek(0)
            _write_header(output, (len(labels[split]), *source.image_shape))  # NumPy leaves room for any length
    for split, mask in masks.items():
        np.save(folder / f"{split}_labels.npy", labels[split])
        if source.names:
            _write_names(compress(source.names(), mask & readable), folder / f"{split}_files.csv")
    return labels


def _write_names(names: Iterator[str], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows((name,) for name in names)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
