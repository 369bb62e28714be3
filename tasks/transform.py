"""Decode the raw dataset into arrays, holding a validation split out of the training images.

Reads:  params.yaml (transform, download.dataset), data/raw/, the image files that data/raw/images.csv lists
Writes: data/prepared/
Run:    python -m tasks.transform
"""

import hashlib
from contextlib import ExitStack
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tasks import image_files, params, raw
from tasks.datasets import DATASETS, RAW
from tasks.prepared import Card, Images, Labels, SplitName
from tasks.raw import Raw, Source
from tasks.stage import StageError, run, stage

GOLDEN_RATIO = 0.618033988749895  # its multiples spread evenly over [0, 1)

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
    own = DATASETS[name].format == "files"
    dataset = image_files.read(p) if own else raw.read(name)
    sources = list(filter(None, (dataset.training, dataset.validation, dataset.test)))
    for source in sources:
        _check(source, dataset.class_names)
        if source.image_shape != dataset.training.image_shape:
            raise StageError(f"test images are {source.image_shape}, training images {dataset.training.image_shape}")
    splits = assign(dataset, p)
    moments = Moments(channels=dataset.training.image_shape[2])
    sizes: dict[SplitName, int] = {}
    for source in sources:
        masks = {split: mask for split, (owner, mask) in splits.items() if owner is source}
        sizes |= write_splits(source, masks, folder, moments)
    _refuse_bad(dataset.bad, sum(len(source.labels) for source in sources), p)
    if empty := [split for split in splits if not sizes[split]]:
        raise StageError(f"no image of the {' and '.join(empty)} split can be read")
    files = (file for source in sources for file in source.files)  # those of several splits may be the same
    return Card(
        name=name,
        class_names=dataset.class_names,
        image_shape=list(dataset.training.image_shape),
        mean=moments.mean(),
        std=moments.std(),
        sizes={split: sizes[split] for split in splits},
        sources={str(file.relative_to(RAW)): _digest(file) for file in dict.fromkeys(files)},
        resize=p.resize if own else "stretch",
        skipped=dataset.bad,
    )


def assign(dataset: Raw, p: params.Transform) -> dict[SplitName, tuple[Source, Mask]]:
    """Say for each split which source its images come from and, `bool [N]`, which of them.

    Raises:
        StageError: a split would be empty.
    """
    training = dataset.training
    test_fraction = 0 if dataset.test else p.test_fraction
    validation_fraction = 0 if dataset.validation else p.validation_fraction
    if training.keys is None:
        test = hold_out(training.labels, test_fraction, p.seed)
        rest = np.flatnonzero(~test)
        validation = np.zeros(len(test), bool)
        validation[rest] = hold_out(training.labels[rest], validation_fraction, p.seed)
    else:
        # An image's bytes say where it belongs, so that those that are added move none of the others.
        position = (training.keys + p.seed * GOLDEN_RATIO) % 1
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
                f"transform.validation_fraction = {p.validation_fraction}, transform.test_fraction = {p.test_fraction}"
            )
    return splits


def _whole(source: Source) -> tuple[Source, Mask]:
    return source, np.ones(len(source.labels), bool)


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


def write_splits(source: Source, masks: dict[SplitName, Mask], folder: Path, moments: Moments) -> dict[SplitName, int]:
    """Write the images and labels that each mask chooses, in their order; training images also go into `moments`.

    Returns:
        how many images were written of each split: all that can be read.
    """
    labels: dict[SplitName, list[Labels]] = {split: [] for split in masks}
    with ExitStack() as files:
        outputs = {split: files.enter_context((folder / f"{split}_images.npy").open("wb")) for split in masks}
        for split, mask in masks.items():
            _write_header(outputs[split], (int(mask.sum()), *source.image_shape))
        for images, places in source.chunks():
            for split, mask in masks.items():
                chosen = images[mask[places]]
                outputs[split].write(np.ascontiguousarray(chosen).data)
                labels[split].append(source.labels[places[mask[places]]])
                if split == "train":
                    moments.add(chosen)
        written = {split: np.concatenate([*parts, np.zeros(0, np.int64)]) for split, parts in labels.items()}
        for split, values in written.items():
            np.save(folder / f"{split}_labels.npy", values)
            outputs[split].seek(0)
            _write_header(outputs[split], (len(values), *source.image_shape))  # NumPy leaves room for any length
    return {split: len(values) for split, values in written.items()}


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _refuse_bad(bad: dict[str, str], count: int, p: params.Transform) -> None:
    if not bad:
        return
    listed = "\n".join(f"  {reason}" for reason in bad.values())
    found = f"{len(bad)} of {count} images cannot be read:\n{listed}"
    if p.on_bad_image == "fail":
        raise StageError(f"{found}\nMend or remove them, or leave them out with transform.on_bad_image: skip")
    if len(bad) > p.max_bad_fraction * count:
        raise StageError(f"{found}\nThese are more than transform.max_bad_fraction = {p.max_bad_fraction}")
    print(f"Left out: {found}", flush=True)


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
