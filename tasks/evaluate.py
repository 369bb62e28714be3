"""Measure the trained network on the test images, which neither training nor validation has seen.

Reads:  params.yaml (evaluate, train.threads), data/prepared/, models/model.pth, models/model.json
Writes: reports/metrics.json, reports/predictions.csv, reports/samples.png, reports/predictions.png
Run:    python -m tasks.evaluate
"""

import csv
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support
from torch import Tensor
from torch.nn.functional import cross_entropy

from tasks import classifier, params, pictures
from tasks.batches import predict
from tasks.classifier import JSON, PTH
from tasks.determinism import set_up
from tasks.prepared import Card, Split
from tasks.stage import run, stage, write_json

METRICS = "reports/metrics.json"
PREDICTIONS = "reports/predictions.csv"
SAMPLES_PNG = "reports/samples.png"
PREDICTIONS_PNG = "reports/predictions.png"


def main() -> None:
    with stage(
        "evaluate",
        reads=["data/prepared", PTH, JSON],
        params=["evaluate", "train.threads"],
        writes=[SAMPLES_PNG, PREDICTIONS_PNG, PREDICTIONS, METRICS],
    ) as running:
        everything = params.load()
        p = everything.evaluate
        device = set_up(everything.train.threads)
        print(f"Using {device} device, {torch.get_num_threads()} CPU threads", flush=True)
        card, test = Card.read(), Split.read("test")
        model, _ = classifier.load()
        logits = predict(model.to(device), test, p.batch_size, device)

        metrics = measure(logits, torch.from_numpy(test.labels), card.class_names)
        predicted = logits.argmax(1).numpy()
        write_json(running.path(METRICS), metrics)
        write_predictions(running.path(PREDICTIONS), test.labels.tolist(), predicted.tolist(), card.class_names)
        pictures.samples(Split.read("train"), card.class_names, p.pictures).savefig(running.path(SAMPLES_PNG))
        pictures.predictions(test, predicted, card.class_names, p.pictures).savefig(running.path(PREDICTIONS_PNG))
    print(f"Test: accuracy {metrics['accuracy']:.1%}, average loss {metrics['loss']:.6f}, {len(test.labels):,} images")


def measure(logits: Tensor, labels: Tensor, class_names: list[str]) -> dict[str, Any]:
    """Compute the contents of metrics.json from logits `float32 [N, classes]` and labels `int64 [N]`.

    Precision, recall and F1 of a class that is never predicted, or has no image, are 0.
    """
    actual, predicted = labels.numpy(), logits.argmax(1).numpy()
    classes = range(len(class_names))
    scores = precision_recall_fscore_support(actual, predicted, labels=classes, zero_division=0)
    return {
        "accuracy": float(accuracy_score(actual, predicted)),
        "loss": cross_entropy(logits, labels).item(),
        "samples": len(labels),
        "per_class": {
            name: {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
            for name, precision, recall, f1, support in zip(class_names, *scores, strict=True)
        },
        # Row: actual class, column: predicted class, both in the order of per_class.
        "confusion_matrix": confusion_matrix(actual, predicted, labels=classes).tolist(),
    }


def write_predictions(path: Path, actual: list[int], predicted: list[int], class_names: list[str]) -> None:
    """Write a row per test image, for DVC's confusion matrix."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("actual", "predicted"))
        writer.writerows((class_names[a], class_names[b]) for a, b in zip(actual, predicted, strict=True))


if __name__ == "__main__":
    run(main)
