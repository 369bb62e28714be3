"""Measure the trained network on the test images, which neither training nor validation has seen; list images of all
splits whose label it doubts most.

Reads:  params.yaml (evaluate, train.threads), data/prepared/, models/model.pth, models/model.json
Writes: reports/metrics.json, reports/predictions.csv, reports/suspects.csv, reports/samples.png,
        reports/predictions.png, reports/suspects.png
Run:    python -m tasks.evaluate
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from tasks import classifier, params, pictures, scores
from tasks.classifier import JSON, PTH
from tasks.determinism import set_up
from tasks.prepared import SPLITS, Card, Place, Split, SplitName, names
from tasks.scores import Scores
from tasks.stage import run, stage, write_json

METRICS = "reports/metrics.json"
PREDICTIONS = "reports/predictions.csv"
SUSPECTS = "reports/suspects.csv"
SAMPLES_PNG = "reports/samples.png"
PREDICTIONS_PNG = "reports/predictions.png"
SUSPECTS_PNG = "reports/suspects.png"
SUSPECTED = 1000  # images, at most


def main() -> None:
    with stage(
        "evaluate",
        reads=["data/prepared", PTH, JSON],
        params=["evaluate", "train.threads"],
        writes=[SAMPLES_PNG, PREDICTIONS_PNG, SUSPECTS_PNG, PREDICTIONS, SUSPECTS, METRICS],
    ) as running:
        everything = params.load()
        p = everything.evaluate
        device = set_up(everything.train.threads)
        print(f"Using {device} device, {torch.get_num_threads()} CPU threads", flush=True)
        card = Card.read()
        model, _ = classifier.load()
        model.to(device)
        splits = {split: Split.read(split) for split in SPLITS}
        scored = {split: scores.score(model, splits[split], p.batch_size, device) for split in SPLITS}

        metrics = measure(scored["test"], card.class_names)
        suspected = suspects(scored, card.class_names)
        write_json(running.path(METRICS), metrics)
        write_predictions(running.path(PREDICTIONS), scored["test"], card.class_names)
        write_suspects(running.path(SUSPECTS), suspected)
        pictures.samples(splits["train"], card.class_names, p.pictures).savefig(running.path(SAMPLES_PNG))
        predicted = pictures.predictions(splits["test"], scored["test"].predicted, card.class_names, p.pictures)
        predicted.savefig(running.path(PREDICTIONS_PNG))
        shown = suspected[: p.pictures]
        images = [splits[suspect.split].images[suspect.index] for suspect in shown]
        said = [(suspect.label, suspect.predicted, suspect.confidence) for suspect in shown]
        pictures.suspects(images, said).savefig(running.path(SUSPECTS_PNG))
    print(
        f"Test: accuracy {metrics['accuracy']:.1%}, average loss {metrics['loss']:.6f}, "
        f"calibration error {metrics['calibration_error']:.1%}, {metrics['samples']:,} images"
    )


def measure(test: Scores, class_names: list[str]) -> dict[str, Any]:
    """Compute the contents of metrics.json.

    Precision, recall and F1 of a class that is never predicted, or has no image, are 0.
    """
    classes = range(len(class_names))
    per_class = precision_recall_fscore_support(test.labels, test.predicted, labels=classes, zero_division=0)
    calibration = scores.calibration(test)
    return {
        "accuracy": float(accuracy_score(test.labels, test.predicted)),
        "loss": float(test.loss.mean(dtype=np.float64)),
        "calibration_error": scores.calibration_error(calibration),
        "samples": len(test.labels),
        "per_class": {
            name: {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
            for name, precision, recall, f1, support in zip(class_names, *per_class, strict=True)
        },
        # Row: actual class, column: predicted class, both in the order of per_class.
        "confusion_matrix": confusion_matrix(test.labels, test.predicted, labels=classes).tolist(),
        "calibration": calibration,
    }


@dataclass(frozen=True)
class Suspect:
    """An image that may be labelled wrongly."""

    image: str  # its path, or its place in data/prepared
    split: SplitName
    index: int
    label: str
    predicted: str
    confidence: float
    loss: float


def suspects(scored: dict[SplitName, Scores], class_names: list[str]) -> list[Suspect]:
    """List the images of all splits that the model takes for something else, those with the highest loss first.

    Where a network has learnt from labels most of which are right, it learns the wrong ones last: Northcutt et al.,
    Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70, 2021, compare such rankings.
    """
    doubted: list[tuple[float, Place]] = []
    for split, found in scored.items():
        wrong = np.flatnonzero(found.predicted != found.labels)
        worst = wrong[np.argsort(-found.loss[wrong], kind="stable")][:SUSPECTED]
        doubted += [(float(found.loss[index]), (split, int(index))) for index in worst]
    doubted = sorted(doubted, key=lambda pair: -pair[0])[:SUSPECTED]
    named = names({place for _, place in doubted})
    return [
        Suspect(
            image=named[split, index],
            split=split,
            index=index,
            label=class_names[scored[split].labels[index]],
            predicted=class_names[scored[split].predicted[index]],
            confidence=float(scored[split].confidence[index]),
            loss=loss,
        )
        for loss, (split, index) in doubted
    ]


def write_predictions(path: Path, test: Scores, class_names: list[str]) -> None:
    """Write a row for each test image, in order; DVC draws its confusion matrix from it."""
    rows = zip(test.labels.tolist(), test.predicted.tolist(), test.confidence, test.loss, strict=True)
    _write_csv(
        path,
        ("actual", "predicted", "confidence", "loss"),
        ((class_names[a], class_names[b], f"{confidence:.6f}", f"{loss:.6f}") for a, b, confidence, loss in rows),
    )


def write_suspects(path: Path, suspected: list[Suspect]) -> None:
    _write_csv(
        path,
        ("image", "split", "index", "label", "predicted", "confidence", "loss"),
        (
            (s.image, s.split, str(s.index), s.label, s.predicted, f"{s.confidence:.6f}", f"{s.loss:.6f}")
            for s in suspected
        ),
    )


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    run(main)
