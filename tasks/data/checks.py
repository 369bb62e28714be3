"""Data checks: what should be known about a dataset before anything is trained on it.

The stage transform shows them every image that it writes; what they find is reports/data.json (`Report`). Two images
are copies if their pixels are the same once they have their final size: that is all that the network sees of them.
"""

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from tasks.data.source import Format
from tasks.gates import verdict
from tasks.gates.verdict import Figure
from tasks.params.transform import Transform
from tasks.prepared import SPLITS, ImageId, Images, Labels, SplitName, names

REPORT = "reports/data.json"
NEARLY_CONSTANT = 2.0  # of 255 grey levels: an image whose standard deviation is below that shows nothing
MAX_LISTED = 1000  # images, groups of copies and formats that the report lists at most; it counts them all
MAX_NAMED = 10  # of the images of a group, and of the groups in an error

Group = list[ImageId]  # images that are copies of each other

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
    """What data.json holds besides the verdict."""

    dataset: str
    reasons: list[str]  # why nothing may be trained on it
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

    @property
    def passed(self) -> bool:
        return not self.reasons

    def contents(self) -> dict[str, Any]:
        """Return the contents of data.json."""
        found = asdict(self)
        return verdict.report("data", found.pop("reasons"), self.figures(), found)

    def figures(self) -> dict[str, Figure]:
        return {
            "images": self.images,
            "test images among the training images": self.leaked,
            "copies within a split": sum(self.copies.values()),
            "unreadable": len(self.unreadable),
            "nearly constant": self.nearly_constant,
            "copies in several classes": self.conflicts,
            "classes without images in some split": len(self.incomplete),
        }

    def summary(self) -> str:
        """Say in one line what was found."""
        return (
            f"{len(self.incomplete):,} classes without images in some split, "
            f"{len(self.unreadable):,} unreadable, {self.nearly_constant:,} nearly constant, "
            f"{sum(self.copies.values()):,} copies within a split, "
            f"{self.leaked:,} test images among the training images"
        )


def digests_of(images: Images) -> Iterator[int]:
    """Yield a digest of 64 bits of each image's pixels."""
    return (xxhash.xxh3_64_intdigest(image.data) for image in images)


class Checks:
    """What is remembered of each image: a digest of its pixels, and whether it is nearly constant."""

    def __init__(self) -> None:
        # 64 bits: among a million images, two that differ have the same digest once in 40 million datasets.
        self.digests: dict[SplitName, array[int]] = {split: array("Q") for split in SPLITS}
        self.constant: list[ImageId] = []

    def add(self, split: SplitName, images: Images, deviations: NDArray[np.float64]) -> None:
        """Take in `uint8 [n, H, W, C]`, the next ones of the split, and their standard deviations `[n, C]`."""
        digests = self.digests[split]
        first = len(digests)
        self.constant += [(split, first + int(index)) for index in np.flatnonzero(deviations.max(1) < NEARLY_CONSTANT)]
        digests.extend(digests_of(images))

    def groups(self) -> list[Group]:
        """Find the images that are there more than once: the places of each, in the order of the splits.

        Those that are nearly constant are left out: they are the same because they show nothing.
        """
        digests = {split: np.frombuffer(values, np.uint64) for split, values in self.digests.items()}
        ordered = np.concatenate(list(digests.values()))
        ordered.sort()
        repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        copies: dict[int, Group] = {}
        for split, values in digests.items():
            for index in np.flatnonzero(np.isin(values, repeated)).tolist():
                copies.setdefault(int(values[index]), []).append((split, index))
        constant = set(self.constant)
        return sorted(group for group in copies.values() if len(group) > 1 and group[0] not in constant)


def report(
    checks: Checks,
    folder: Path,
    *,
    dataset: str,
    class_names: list[str],
    labels: dict[SplitName, Labels],
    formats: Counter[Format],
    unreadable: dict[str, str],
    params: Transform,
) -> Report:
    """Put together what was found about the images that were written to `folder`, and judge it by `params`."""
    groups = checks.groups()
    leaked = sum(_members(group, "test") for group in groups if _leaks_into_test(group))
    class_of = {image: class_names[labels[image[0]][image[1]]] for group in groups for image in group}
    listed = _list_copies(groups, class_of, folder)
    constant = checks.constant[:MAX_LISTED]
    constant_names = names(set(constant), folder)
    by_class = _count_classes(class_names, labels)
    return Report(
        dataset=dataset,
        reasons=[
            *_too_few(class_names, by_class),
            *_unreadable(unreadable, labels, params),
            *_leaking(leaked, len(labels["test"]), listed, params),
        ],
        images=sum(map(len, labels.values())),
        classes=[{"name": name, **of_split} for name, of_split in by_class.items()],
        incomplete=[name for name, of_split in by_class.items() if any(of_split.values()) and 0 in of_split.values()],
        formats=[
            {"width": width, "height": height, "mode": mode, "images": count}
            for (width, height, mode), count in formats.most_common(MAX_LISTED)
        ],
        unreadable=[{"image": image, "reason": reason} for image, reason in unreadable.items()],
        nearly_constant=len(checks.constant),
        nearly_constant_images=[constant_names[image] for image in constant],
        copies={split: sum(max(0, _members(group, split) - 1) for group in groups) for split in SPLITS},
        leaks={
            name: sum(_members(group, b) for group in groups if _members(group, a)) for name, (a, b) in LEAKS.items()
        },
        leaked=leaked,
        conflicts=sum(_conflicting(group, class_of) for group in groups),
        groups=listed,
    )


def _list_copies(groups: list[Group], class_of: dict[ImageId, str], folder: Path) -> list[Copies]:
    """Name the first few images of each group, beginning with the groups that leak into test, then conflicts."""
    foremost = sorted(groups, key=lambda group: (not _leaks_into_test(group), not _conflicting(group, class_of)))
    shown = [(len(group), _in_turn(group)[:MAX_NAMED]) for group in foremost[:MAX_LISTED]]
    named = names({image for _, group in shown for image in group}, folder)
    return [
        Copies(
            count=count,
            images=[named[image] for image in group],
            classes=[class_of[image] for image in group],
            splits=[split for split, _ in group],
        )
        for count, group in shown
    ]


def _count_classes(class_names: list[str], labels: dict[SplitName, Labels]) -> dict[str, dict[str, int]]:
    """Count the images of each class, by split."""
    counts = {split: np.bincount(labels[split], minlength=len(class_names)).tolist() for split in SPLITS}
    return {name: {split: counts[split][label] for split in SPLITS} for label, name in enumerate(class_names)}


def _in_turn(group: Group) -> Group:
    """Order a group by splits in turn: the first of each, then the second of each."""
    rank: dict[ImageId, int] = {}
    for split in SPLITS:
        rank |= {image: number for number, image in enumerate(image for image in group if image[0] == split)}
    return sorted(group, key=rank.__getitem__)


def _members(group: Group, split: SplitName) -> int:
    return sum(owner == split for owner, _ in group)


def _conflicting(group: Group, class_of: dict[ImageId, str]) -> bool:
    return len({class_of[image] for image in group}) > 1


def _leaks_into_test(group: Group) -> bool:
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


def _unreadable(unreadable: dict[str, str], labels: dict[SplitName, Labels], params: Transform) -> list[str]:
    images = len(unreadable) + sum(map(len, labels.values()))
    if (params.on_bad_image == "skip" and len(unreadable) <= params.max_bad_fraction * images) or not unreadable:
        return []
    listed = "\n".join(f"  {image}: {reason}" for image, reason in unreadable.items())
    advice = (
        f"Mend or remove them, or leave them out with transform.on_bad_image: skip, up to {params.max_bad_fraction:.1%}"
        if params.on_bad_image == "fail"
        else f"These are more than transform.max_bad_fraction = {params.max_bad_fraction}: mend or remove them, "
        "or raise it"
    )
    return [
        f"{len(unreadable)} of {images} images ({len(unreadable) / images:.1%}) cannot be read:\n{listed}\n{advice}"
    ]


def _leaking(count: int, images: int, listed: list[Copies], params: Transform) -> list[str]:
    if params.on_leak == "allow" or not count:
        return []
    leaking = [group for group in listed if "test" in group.splits and len(set(group.splits)) > 1]
    lines = [f"  {group}" for group in leaking[:MAX_NAMED]]
    if len(leaking) > MAX_NAMED:
        lines.append(f"  and more, see {REPORT}")
    return [
        f"{count} of {images} test images are among the training images, too:\n"
        + "\n".join(lines)
        + "\nRemove them from one of the two, or accept them with transform.on_leak: allow"
    ]
