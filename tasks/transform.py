"""Decode the raw dataset into arrays, holding a validation split out of the training images.

Reads:  params.yaml (transform, download.dataset), data/raw/, the image files that data/raw/images.csv lists
Writes: data/prepared/, and what the data checks found: reports/data.json
Run:    python -m tasks.transform
"""

import csv
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import compress
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tasks import checks, params, raw
from tasks.checks import DATA, Checks
from tasks.datasets import DATASETS, RAW
from tasks.inputs import sha256
from tasks.moments import Moments, deviations, pixel_sums
from tasks.prepared import SPLITS, Card, Labels, SplitName
from tasks.raw import Raw, Source
from tasks.stage import StageError, run, stage, write_json

GOLDEN_RATIO = 0.618033988749895  # its multiples spread evenly over [0, 1)

Mask = NDArray[np.bool_]


def main() -> None:
    with stage(
        "transform",
        reads=["data/raw"],
        params=["transform", "download.dataset"],
        writes=["data/prepared", DATA],
    ) as running:
        p = params.load()
        print(f"Decoding {p.download.dataset}", flush=True)
        folder = running.path("data/prepared")
        folder.mkdir()
        try:
            card, report = prepare(p.download.dataset, p.transform, folder)
        except StageError as error:
            report = checks.Report(passed=False, problems=[str(error)], dataset=p.download.dataset)
        write_json(running.path(DATA), asdict(report))
        if report.problems:
            running.publish(DATA)
            raise StageError("\n".join(report.problems))
        card.write(folder)
    for bad in report.unreadable:
        print(f"Left out: {bad['image']}: {bad['reason']}")
    sizes = ", ".join(f"{size:,} {split}" for split, size in card.sizes.items())
    print(f"{card.name}: {sizes} images of {' x '.join(map(str, card.image_shape))} (height, width, channels)")
    print(f"Checked: {checks.summary(report)}; see {DATA}")


def prepare(name: str, p: params.Transform, folder: Path) -> tuple[Card, checks.Report]:
    """Write the three splits of dataset `name` to `folder`; return their description, and what the checks found.

    Raises:
        StageError: a raw file is not what it should be, a label has no class, or a split would be empty.
    """
    own = DATASETS[name].format == "files"
    dataset = _own(p) if own else raw.read(name)
    sources = list(filter(None, (dataset.training, dataset.validation, dataset.test)))
    for source in sources:
        _check(source, dataset.class_names)
        if source.image_shape != dataset.training.image_shape:
            raise StageError(f"test images are {source.image_shape}, training images {dataset.training.image_shape}")
    splits = assign(dataset, p)
    moments, seen = Moments(dataset.training.image_shape[2]), Checks()
    labels: dict[SplitName, Labels] = {}
    for source in sources:
        masks = {split: mask for split, (owner, mask) in splits.items() if owner is source}
        labels |= write_splits(source, masks, folder, moments, seen)
    if empty := [split for split in SPLITS if not len(labels[split])]:
        reasons = "".join(f"\n  {image}: {reason}" for image, reason in dataset.bad.items())
        raise StageError(f"no image of the {' and '.join(empty)} split can be read:{reasons}")
    report = checks.report(
        seen,
        folder,
        dataset=name,
        class_names=dataset.class_names,
        labels=labels,
        formats=sum((source.formats for source in sources), Counter()),
        unreadable=dataset.bad,
        p=p,
    )
    files = (file for source in sources for file in source.files)  # those of several splits may be the same
    card = Card(
        name=name,
        class_names=dataset.class_names,
        image_shape=list(dataset.training.image_shape),
        mean=moments.mean(),
        std=moments.std(),
        sizes={split: len(labels[split]) for split in SPLITS},
        sources={str(file.relative_to(RAW)): f"sha256:{sha256(file)}" for file in dict.fromkeys(files)},
        resize=p.resize if own else "stretch",
        skipped=dataset.bad,
    )
    return card, report


def _own(p: params.Transform) -> Raw:
    from tasks import image_files  # with Pillow, which takes a while and is not needed for archives

    return image_files.read(p)


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
        for images, places in source.chunks():
            readable[places] = True
            for split, mask in masks.items():
                chosen = np.ascontiguousarray(images[mask[places]])
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


def _check(source: Source, class_names: list[str]) -> None:
    wrong = np.flatnonzero((source.labels < 0) | (source.labels >= len(class_names)))
    if len(wrong):
        raise StageError(
            f"{source.files[-1]}: label {source.labels[wrong[0]]} of image {wrong[0]} has no class: there are "
            f"{len(class_names)}, 0 to {len(class_names) - 1} ({len(wrong)} labels like it)"
        )


if __name__ == "__main__":
    run(main)
