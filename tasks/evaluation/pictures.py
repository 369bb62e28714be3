"""Pictures for people: what the dataset looks like, and what the model makes of it."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.prepared import Images, Labels, Split, SplitName

if TYPE_CHECKING:  # it would bring torch along, which the report does without
    from tasks.evaluation.suspects import Suspect

COLUMNS = 5
# Inches: what an image and its title of two lines take, and the longer side of the image.
CELL = (1.7, 2.1)
SIDE = 1.55


def samples(split: Split, class_names: list[str], count: int) -> Figure:
    """Draw `count` images under their labels, the first ones of each class in turn."""
    chosen = in_turn(split.labels, count)
    return _grid(split.images[chosen], [class_names[label] for label in split.labels[chosen]], ["black"] * len(chosen))


def in_turn(labels: Labels, count: int) -> NDArray[np.int64]:
    """Choose `count` indices of `labels`: the first of each class, then the second of each, and so on."""
    rank = np.empty(len(labels), int)  # of an image among those of its class
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    return np.lexsort((labels, rank))[:count]


def predictions(split: Split, predicted: Labels, class_names: list[str], count: int) -> Figure:
    """Draw the first `count` images under the predicted class `int64 [N]`; mistakes marked, with the actual class."""
    titles, colors = [], []
    for actual, guess in zip(split.labels[:count], predicted[:count], strict=True):
        right = actual == guess
        titles.append(class_names[guess] if right else f"✗ {class_names[guess]}\nis {class_names[actual]}")
        colors.append("black" if right else "#c00000")
    figure = _grid(split.images[:count], titles, colors)
    mistakes = sum(color != "black" for color in colors)
    figure.suptitle(f"The first {len(titles)} test images as predicted; {mistakes} mistakes (✗), with the actual class")
    return figure


def suspects(splits: Mapping[SplitName, Split], doubted: "Sequence[Suspect]") -> Figure:
    """Draw images under their label, what the model predicts instead, and how sure it is of it."""
    images = [splits[suspect.split].images[suspect.index] for suspect in doubted]
    titles = [f"{suspect.label}?\n{suspect.predicted} {suspect.confidence:.0%}" for suspect in doubted]
    figure = _grid(images, titles, ["black"] * len(titles))
    figure.suptitle(f"Labels that the model doubts most: {len(titles)} images, and what it would say")
    return figure


def _grid(images: Sequence[Images] | Images, titles: list[str], colors: list[str]) -> Figure:
    """Draw images in rows, in inches on one axis: with an axis each, matplotlib takes ten times as long."""
    rows = max(1, ceil(len(images) / COLUMNS))
    width, height, head = COLUMNS * CELL[0], rows * CELL[1], 0.4
    figure = Figure(figsize=(width, height + head), dpi=80)
    axis = figure.add_axes((0, 0, 1, height / (height + head)))
    axis.axis("off")
    for number, (image, title, color) in enumerate(zip(images, titles, colors, strict=True)):
        row, column = divmod(number, COLUMNS)
        scale = SIDE / max(image.shape[:2])
        bottom, center = (row + 1) * CELL[1] - 0.05, (column + 0.5) * CELL[0]
        top, half = bottom - image.shape[0] * scale, image.shape[1] * scale / 2
        axis.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(center - half, center + half, bottom, top))
        axis.text(center, top - 0.05, title, color=color, fontsize=11, ha="center", va="bottom", parse_math=False)
    axis.set(xlim=(0, width), ylim=(height, 0))
    return figure
