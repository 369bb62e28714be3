"""The charts of the report, as SVG."""

import io
import warnings
from collections.abc import Sequence
from math import ceil
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tasks.evaluation.record import BINS, Evaluation

NAMED = 20  # classes whose names and counts a confusion matrix has room for
LONGEST = 24  # letters of a name
BARS = 0.05  # what the bars of a bin take, of which 15 are 1
BLUE, ORANGE, GREY = "#1f5fa8", "#d9730d", "#8a8f98"


def svg(figure: Figure) -> bytes:
    """Draw a figure; the same one gives the same bytes."""
    buffer = io.BytesIO()
    # Text stays text: the browser has letters that matplotlib's own font has not.
    with mpl.rc_context({"svg.hashsalt": "report", "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def learning_curve(rows: Sequence[dict[str, float]]) -> Figure:
    """Draw the rows of reports/learning_curve.csv: the losses, and the accuracy on the validation split."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    losses, accuracy = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    losses.plot(epochs, [row["train_loss"] for row in rows], marker="o", ms=3, color=ORANGE, label="train")
    losses.plot(epochs, [row["validation_loss"] for row in rows], marker="o", ms=3, color=BLUE, label="validation")
    losses.legend(frameon=False)
    accuracy.plot(epochs, [row["validation_accuracy"] for row in rows], marker="o", ms=3, color=BLUE)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    accuracy.set_ylim(top=min(1.005, accuracy.get_ylim()[1]))
    for axis, title in ((losses, "Loss"), (accuracy, "Accuracy on the validation split")):
        _tidy(axis, title, "epoch", "")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def calibration(metrics: Evaluation) -> Figure:
    """Draw how often the model is right against how sure it is, as it is and at its temperature."""
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    right, images = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    right.plot((0, 1), (0, 1), color=GREY, ls="--", lw=1, label="perfectly calibrated")
    after = metrics.calibrated
    drawn = [("as trained", ORANGE, metrics.calibration, metrics.calibration_error)]
    if metrics.temperature.value != 1:
        name = f"at temperature {metrics.temperature.value:g}"
        drawn.append((name, BLUE, after.calibration, after.calibration_error))
    width = BARS / len(drawn)
    for number, (name, color, bins, error) in enumerate(drawn):
        sure = [row.confidence for row in bins]
        label = f"{name}: error {error:.1%}"
        right.plot(sure, [row.accuracy for row in bins], marker="o", ms=4, color=color, label=label)
        # Both begin in the middle of the same bin, so that they stand side by side.
        places = [
            (max(1, ceil(row.confidence * BINS)) - 0.5) / BINS + (number + 0.5) * width - BARS / 2 for row in bins
        ]
        images.bar(places, [row.images for row in bins], width=width, color=color)
    right.legend(frameon=False, loc="best", fontsize=8)
    right.set(xlim=(0, 1), ylim=(0, 1.02))
    for axis in (right, images):
        axis.xaxis.set_major_formatter(PercentFormatter(1))
    right.yaxis.set_major_formatter(PercentFormatter(1))
    _tidy(right, "", "", "how often it is right")
    _tidy(images, "", "how sure the model is", "images")
    return figure


def confusion_matrix(counts: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    """Draw how many images of each class (row) were taken for which (column), coloured by their share of the row."""
    table = np.array(counts)
    share = table / np.maximum(1, table.sum(1, keepdims=True))
    named = len(class_names) <= NAMED
    side = 1.6 + 0.5 * len(class_names) if named else 7
    figure = Figure(figsize=(max(4.4, side), max(3.6, side * 0.9)), layout="constrained")
    axis = figure.subplots()
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if named:
        places = range(len(class_names))
        short = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in class_names]
        axis.set_xticks(places, short, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(places, short)
        for label in (*axis.get_xticklabels(), *axis.get_yticklabels()):
            label.set_parse_math(False)
        for (row, column), count in np.ndenumerate(table):
            if count:
                color = "white" if share[row, column] > 0.5 else "black"
                axis.text(column, row, f"{count}", ha="center", va="center", fontsize=8, color=color)
    axis.set(xlabel="predicted", ylabel="actual")
    axis.tick_params(length=0)
    return figure


def _tidy(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set(title=title, xlabel=x, ylabel=y)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e6e8eb")
    axis.set_axisbelow(True)


def most_confused(counts: Sequence[Sequence[int]], class_names: Sequence[str], most: int = 10) -> list[dict[str, Any]]:
    """List the pairs of classes that are taken for each other most often: actual, predicted, images, share."""
    table = np.array(counts)
    wrong = table * (1 - np.eye(len(table), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(at), len(table)) for at in order if wrong.flat[at]]
    return [
        {
            "actual": class_names[a],
            "predicted": class_names[b],
            "images": int(table[a, b]),
            "share": table[a, b] / table[a].sum(),
        }
        for a, b in pairs
    ]
