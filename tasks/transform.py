"""Decode the raw dataset into arrays, holding a validation split out of the training images.

Reads:  params.yaml (transform, download.dataset), data/raw/
Writes: data/prepared/
Run:    python -m tasks.transform
"""

import hashlib
from contextlib import ExitStack
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks import params, raw
from tasks.prepared import Card, Images, Labels, SplitName
from tasks.raw import Raw, Source
from tasks.stage import StageError, run, stage

Mask = NDArray[np.bool_]


def main() -> None:
    with stage(
        "transform",
        reads=["data/raw"],
        params=["transform", "download.dataset"],
        writes=["data/prepared"],
    ) as running:
        p = params.load()
        print(f"Decoding {p.download.dataset}", flush=True)
        folder = running.path("data/prepared")
        folder.mkdir()
        card = prepare(p.download.dataset, p.transform, folder)
        card.write(folder)
        sizes = ", ".join(f"{size:,} {split}" for split, size in card.sizes.items())
        print(f"{card.name}: {sizes} images of {' x '.join(map(str, card.image_shape))} (height, width, channels)")


def prepare(name: str, p: params.Transform, folder: Path) -> Card:
    """Write the three splits of dataset `name` to `folder` and return their description.

    Raises:
        StageError: a raw file is not what it should be, a label has no class, or a split would be empty.
    """
    dataset = raw.read(name)
    if dataset.test and dataset.test.image_shape != dataset.training.image_shape:
        raise StageError(f"test images are {dataset.test.image_shape}, training images {dataset.training.image_shape}")
    splits = assign(dataset, p)
    moments = Moments(channels=dataset.training.image_shape[2])
    for source in filter(None, (dataset.training, dataset.test)):
        _check(source, dataset.class_names)
        masks = {split: mask for split, (owner, mask) in splits.items() if owner is source}
        write_splits(source, masks, folder, moments)
    return Card(
        name=name,
        class_names=dataset.class_names,
        image_shape=list(dataset.training.image_shape),
        mean=moments.mean(),
        std=moments.std(),
        sizes={split: int(mask.sum()) for split, (_, mask) in splits.items()},
        sources={
            str(file.relative_to(raw.FOLDER)): _digest(file)
            for source in filter(None, (dataset.training, dataset.test))
            for file in source.files
        },
    )


def assign(dataset: Raw, p: params.Transform) -> dict[SplitName, tuple[Source, Mask]]:
    """Say for each split which source its images come from and, `bool [N]`, which of them.

    Raises:
        StageError: a split would be empty.
    """
    labels = dataset.training.labels
    test = np.zeros(len(labels), bool) if dataset.test else hold_out(labels, p.test_fraction, p.seed)
    rest = np.flatnonzero(~test)
    validation = np.zeros(len(labels), bool)
    validation[rest] = hold_out(labels[rest], p.validation_fraction, p.seed)
    splits: dict[SplitName, tuple[Source, Mask]] = {
        "train": (dataset.training, ~(test | validation)),
        "validation": (dataset.training, validation),
        "test": (dataset.test, np.ones(len(dataset.test.labels), bool)) if dataset.test else (dataset.training, test),
    }
    for name, (_, mask) in splits.items():
        if not mask.any():
            raise StageError(
                f"the {name} split would be empty: {len(labels)} training images, transform.validation_fraction = "
                f"{p.validation_fraction}, transform.test_fraction = {p.test_fraction}"
            )
    return splits


def hold_out(labels: Labels, fraction: float, seed: int) -> Mask:
    """Choose `fraction` of the images of each class at random; return `bool [N]`, true where one is held out."""
    generator = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        held_out[generator.permutation(members)[: round(len(members) * fraction)]] = True
    return held_out


class Moments:
    """Per-channel mean and standard deviation of uint8 images scaled to [0, 1]; exact, because it sums integers."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.sums = [0] * channels
        self.squares = [0] * channels

    def add(self, images: Images) -> None:
        """Take in `uint8 [n, H, W, C]`."""
        self.count += prod(images.shape[:3])
        for channel in range(len(self.sums)):
            values = images[..., channel]
            self.sums[channel] += int(values.sum(dtype=np.uint64))
            self.squares[channel] += int(np.square(values, dtype=np.uint16).sum(dtype=np.uint64))

    def mean(self) -> list[float]:
        return [total / self.count / 255 for total in self.sums]

    def std(self) -> list[float]:
        variances = [
            (square * self.count - total**2) / self.count**2
            for total, square in zip(self.sums, self.squares, strict=True)
        ]
        return [variance**0.5 / 255 for variance in variances]


def write_splits(source: Source, masks: dict[SplitName, Mask], folder: Path, moments: Moments) -> None:
    """Write the images and labels that each mask chooses, in their order; training images also go into `moments`."""
    with ExitStack() as files:
        outputs = {}
        for split, mask in masks.items():
            outputs[split] = files.enter_context((folder / f"{split}_images.npy").open("wb"))
            header = {"descr": "|u1", "fortran_order": False, "shape": (int(mask.sum()), *source.image_shape)}
            np.lib.format.write_array_header_1_0(outputs[split], header)
            np.save(folder / f"{split}_labels.npy", source.labels[mask])
        start = 0
        for images in source.chunks():
            for split, mask in masks.items():
                chosen = images[mask[start : start + len(images)]]
                outputs[split].write(chosen.data)
                if split == "train":
                    moments.add(chosen)
            start += len(images)


def _check(source: Source, class_names: list[str]) -> None:
    wrong = np.flatnonzero((source.labels < 0) | (source.labels >= len(class_names)))
    if len(wrong):
        raise StageError(
            f"{source.files[-1]}: label {source.labels[wrong[0]]} of image {wrong[0]} has no class: there are "
            f"{len(class_names)}, 0 to {len(class_names) - 1} ({len(wrong)} labels like it)"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


if __name__ == "__main__":
    run(main)
