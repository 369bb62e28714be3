"""Data checks: what should be known about a dataset before anything is trained on it.

The stage transform shows them every image that it writes; what they find is reports/data.json (`Report`). Two images
are copies if their pixels are the same once they have their final size: that is all that the network sees of them.
"""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from tasks import params
from tasks.prepared import SPLITS, Images, Labels, Place, SplitName, names
from tasks.raw import Format

DATA = "reports/data.json"
NEARLY_CONSTANT = 2.0  # of 255 grey levels: an image whose standard deviation is below that shows nothing
LISTED = 1000  # images, groups of copies and formats that the report lists at most; it counts them all
NAMED = 10  # of the images of a group, and of the groups in an error

LEAKS = {f"{a}_{b}": (a, b) for a, b in combinations(SPLITS, 2)}  # "train_test": images of test that train has, too


@dataclass(frozen=True)
class Copies:
    """Images with the same pixels; listed are the first few, at least one of each split that has any."""

    count: int
    images: list[str]
    classes: list[str]  # of each image
    splits: list[SplitName]

    def __str__(self) -> str:
        pairs = list(zip(self.splits, self.images, strict=True))
        return "; ".join(
            f"{split}: {', '.join(image for owner, image in pairs if owner == split)}"
            for split in dict.fromkeys(self.splits)
        )


@dataclass(frozen=True)
class Report:
    """The contents of data.json."""

    passed: bool
    problems: list[str]  # why nothing may be trained on it
    dataset: str
    images: int = 0
    classes: list[dict[str, str | int]] = field(default_factory=list)  # name, and how many images each split has
    incomplete: list[str] = field(default_factory=list)  # classes that have images, but not in every split
    # width, height (upright), mode, images: as the files have them, the most frequent first
    formats: list[dict[str, int | str]] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)  # image, reason: all of them
    nearly_constant: int = 0
    nearly_constant_images: list[str] = field(default_factory=list)
    copies: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))  # that the same split has already
    leaks: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LEAKS, 0))  # images of the second split
    leaked: int = 0  # test images that train or validation has, too
    conflicts: int = 0  # groups of copies that are not of one class
    groups: list[Copies] = field(default_factory=list)  # first those that leak into test, then conflicts


class Checks:
    """What is remembered of each image: a digest of its pixels, and whether it is nearly constant."""

    def __init__(self) -> None:
        # 64 bits: among a million images, two that differ have the same digest once in 40 million datasets.
        self.digests: dict[SplitName, array[int]] = {split: array("Q") for split in SPLITS}
        self.constant: list[Place] = []

    def add(self, split: SplitName, images: Images, deviations: NDArray[np.float64]) -> None:
        """Take in `uint8 [n, H, W, C]`, the next ones of the split, and their standard deviations `[n, C]`."""
        digests = self.digests[split]
        first = len(digests)
        self.constant += [(split, first + int(index)) for index in np.flatnonzero(deviations.max(1) < NEARLY_CONSTANT)]
        digests.extend(xxhash.xxh3_64_intdigest(image.data) for image in images)

    def groups(self) -> list[list[Place]]:
        """Find the images that are there more than once: the places of each, in the order of the splits.

        Those that are nearly constant are left out: they are the same because they show nothing.
        """
        digests = {split: np.frombuffer(values, np.uint64) for split, values in self.digests.items()}
        ordered = np.concatenate(list(digests.values()))
        ordered.sort()
        repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        places: dict[int, list[Place]] = {}
        for split, values in digests.items():
            for index in np.flatnonzero(np.isin(values, repeated)).tolist():
                places.setdefault(int(values[index]), []).append((split, index))
        constant = set(self.constant)
        return sorted(group for group in places.values() if len(group) > 1 and group[0] not in constant)


def report(
    checks: Checks,
    folder: Path,
    *,
    dataset: str,
    class_names: list[str],
    labels: dict[SplitName, Labels],
    formats: Counter[Format],
    unreadable: dict[str, str],
    p: params.Transform,
) -> Report:
    """Put together what was found about the images that were written to `folder`, and judge it by `p`."""
    groups = checks.groups()
    leaks = {name: sum(_members(group, b) for group in groups if _members(group, a)) for name, (a, b) in LEAKS.items()}

    leaked = sum(_members(group, "test") for group in groups if _leaked(group))
    class_of = {place: class_names[labels[place[0]][place[1]]] for group in groups for place in group}

    def conflicting(group: list[Place]) -> bool:
        return len({class_of[place] for place in group}) > 1

    foremost = sorted(groups, key=lambda group: (not _leaked(group), not conflicting(group)))[:LISTED]
    shown = [_in_turn(group)[:NAMED] for group in foremost]
    named = names({*checks.constant[:LISTED], *(place for group in shown for place in group)}, folder)
    listed = [
        Copies(
            count=len(group),
            images=[named[place] for place in some],
            classes=[class_of[place] for place in some],
            splits=[split for split, _ in some],
        )
        for group, some in zip(foremost, shown, strict=True)
    ]
    counts = {split: np.bincount(labels[split], minlength=len(class_names)).tolist() for split in SPLITS}
    by_class: dict[str, dict[str, int]] = {
        name: {split: counts[split][at] for split in SPLITS} for at, name in enumerate(class_names)
    }
    problems = [
        *_too_few(class_names, by_class),
        *_unreadable(unreadable, labels, p),
        *_leaking(leaked, len(labels["test"]), listed, p),
    ]
    return Report(
        passed=not problems,
        problems=problems,
        dataset=dataset,
        images=sum(map(len, labels.values())),
        classes=[{"name": name, **of_split} for name, of_split in by_class.items()],
        incomplete=[name for name, of_split in by_class.items() if any(of_split.values()) and 0 in of_split.values()],
        formats=[
            {"width": width, "height": height, "mode": mode, "images": count}
            for (width, height, mode), count in formats.most_common(LISTED)
        ],
        unreadable=[{"image": image, "reason": reason} for image, reason in unreadable.items()],
        nearly_constant=len(checks.constant),
        nearly_constant_images=[named[place] for place in checks.constant[:LISTED]],
        copies={split: sum(max(0, _members(group, split) - 1) for group in groups) for split in SPLITS},
        leaks=leaks,
        leaked=leaked,
        conflicts=sum(map(conflicting, groups)),
        groups=listed,
    )


def summary(found: Report) -> str:
    """Say in one line what was found."""
    return (
        f"{len(found.incomplete):,} classes without images in some split, "
        f"{len(found.unreadable):,} unreadable, {found.nearly_constant:,} nearly constant, "
        f"{sum(found.copies.values()):,} copies within a split, "
        f"{found.leaked:,} test images among the training images"
    )


def _in_turn(group: list[Place]) -> list[Place]:
    """Order a group by splits in turn: the first of each, then the second of each."""
    rank: dict[Place, int] = {}
    for split in SPLITS:
        rank |= {place: number for number, place in enumerate(place for place in group if place[0] == split)}
    return sorted(group, key=rank.__getitem__)


def _members(group: list[Place], split: SplitName) -> int:
    return sum(owner == split for owner, _ in group)


def _leaked(group: list[Place]) -> bool:
    """Tell whether a test image has been seen before; validation images are training images that were held out."""
    return _members(group, "test") > 0 and any(split != "test" for split, _ in group)


def _too_few(class_names: list[str], by_class: dict[str, dict[str, int]]) -> list[str]:
    if len(class_names) == 1:
        return [f"there is one class only, {class_names[0]}: a classifier has to tell it from at least one other"]
    counts = {name: sum(of_split.values()) for name, of_split in by_class.items() if not of_split["train"]}
    untrained = [f"{name} ({count} images)" for name, count in counts.items() if count]
    if not untrained:
        return []
    return [
        f"no image of {', '.join(untrained)} is in the train split: nothing can be learnt of it. "
        "Add images of it, leave it out, or say yourself which split each image is in"
    ]


def _unreadable(unreadable: dict[str, str], labels: dict[SplitName, Labels], p: params.Transform) -> list[str]:
    images = len(unreadable) + sum(map(len, labels.values()))
    if (p.on_bad_image == "skip" and len(unreadable) <= p.max_bad_fraction * images) or not unreadable:
        return []
    listed = "\n".join(f"  {image}: {reason}" for image, reason in unreadable.items())
    advice = (
        f"Mend or remove them, or leave them out with transform.on_bad_image: skip, up to {p.max_bad_fraction:.1%}"
        if p.on_bad_image == "fail"
        else f"These are more than transform.max_bad_fraction = {p.max_bad_fraction}: mend or remove them, or raise it"
    )
    return [
        f"{len(unreadable)} of {images} images ({len(unreadable) / images:.1%}) cannot be read:\n{listed}\n{advice}"
    ]


def _leaking(count: int, images: int, listed: list[Copies], p: params.Transform) -> list[str]:
    if p.on_leak == "allow" or not count:
        return []
    leaking = [group for group in listed if "test" in group.splits and len(set(group.splits)) > 1]
    lines = [f"  {group}" for group in leaking[:NAMED]]
    if len(leaking) > NAMED:
        lines.append(f"  and more, see {DATA}")
    return [
        f"{count} of {images} test images are among the training images, too:\n"
        + "\n".join(lines)
        + "\nRemove them from one of the two, or accept them with transform.on_leak: allow"
    ]
