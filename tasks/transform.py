"""Decode the raw dataset into arrays, holding a validation split out of the training images, and check the data.

Reads:  params.yaml (transform, download.dataset), data/raw/, the image files that data/raw/images.csv lists
Writes: data/prepared/, and what the data checks found: reports/data.json
Run:    python -m tasks transform
"""

from collections import Counter
from pathlib import Path

import numpy as np

from tasks.data import archives, checks, image_files, strangers
from tasks.data.checks import REPORT, Checks
from tasks.data.datasets import DATASETS, RAW
from tasks.data.moments import Moments
from tasks.data.source import Raw, Source
from tasks.data.splits import assign, write_splits
from tasks.harness import section
from tasks.harness.code import sha256
from tasks.harness.errors import StageError
from tasks.harness.records import write_json
from tasks.harness.stage import stage
from tasks.params.download import Download
from tasks.params.transform import Transform
from tasks.prepared import FOLDER, SPLITS, Card, Labels, SplitName


def main() -> None:
    with stage(
        "transform",
        reads=["data/raw"],
        params=["transform", "download.dataset"],
        writes=["data/prepared", REPORT],
    ) as running:
        name, params = section.load(Download).dataset, section.load(Transform)
        strangers.check(FOLDER)
        print(f"Decoding {name}", flush=True)
        folder = running.path("data/prepared")
        folder.mkdir()
        try:
            card, report = prepare(name, params, folder)
        except StageError as error:
            report = checks.Report(dataset=name, reasons=[str(error)])
        write_json(running.path(REPORT), report.contents())
        if not report.passed:
            running.publish(REPORT)
            raise StageError("\n".join(report.reasons))
        card.write(folder)
    for bad in report.unreadable:
        print(f"Left out: {bad['image']}: {bad['reason']}")
    sizes = ", ".join(f"{size:,} {split}" for split, size in card.sizes.items())
    print(f"{card.name}: {sizes} images of {' x '.join(map(str, card.image_shape))} (height, width, channels)")
    print(f"Checked: {report.summary()}; see {REPORT}")


def prepare(name: str, params: Transform, folder: Path) -> tuple[Card, checks.Report]:
    """Write the three splits of dataset `name` to `folder`; return their description, and what the checks found.

    Raises:
        StageError: a raw file is not what it should be, a label has no class, or a split would be empty.
    """
    own = DATASETS[name].format == "files"
    dataset = image_files.read(params) if own else archives.read(name)
    sources = list(filter(None, (dataset.training, dataset.validation, dataset.test)))
    _check_sources(sources, dataset)
    splits = assign(dataset, params)
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
        params=params,
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
        resize=params.resize if own else "stretch",
        skipped=dataset.bad,
    )
    return card, report


def _check_sources(sources: list[Source], dataset: Raw) -> None:
    """See that every label has a class, and that all images have one shape."""
    classes = len(dataset.class_names)
    for source in sources:
        wrong = np.flatnonzero((source.labels < 0) | (source.labels >= classes))
        if len(wrong):
            raise StageError(
                f"{source.files[-1]}: label {source.labels[wrong[0]]} of image {wrong[0]} has no class: there are "
                f"{classes}, 0 to {classes - 1} ({len(wrong)} labels like it)"
            )
        if source.image_shape != dataset.training.image_shape:
            raise StageError(f"test images are {source.image_shape}, training images {dataset.training.image_shape}")


if __name__ == "__main__":
    raise SystemExit("the stages have one door: python -m tasks transform")
