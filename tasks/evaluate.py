"""Measure the trained network on the test images, which neither training nor validation has seen; list images of all
splits whose label it doubts most. Fit the temperature that calibrates it on the validation images; only evaluation.json
has figures with it, the tables and pictures are of the network as it is.

Reads:  params.yaml (evaluate, train.threads), data/prepared/, models/model.pth, models/model.json
Writes: reports/evaluation.json, reports/predictions.csv, reports/suspects.csv, reports/samples.png,
        reports/predictions.png, reports/suspects.png
Run:    python -m tasks evaluate
"""

from dataclasses import asdict
from pathlib import Path

import torch

from tasks.evaluation import pictures, scores, tables, temperature
from tasks.evaluation.record import EVALUATION
from tasks.evaluation.scores import Scores, measure
from tasks.evaluation.suspects import Suspect, suspects
from tasks.harness import section
from tasks.harness.records import write_json
from tasks.harness.stage import stage
from tasks.model import classifier
from tasks.model.affinity import apart
from tasks.model.batches import predict
from tasks.model.classifier import JSON, PTH
from tasks.model.determinism import set_up
from tasks.params.evaluate import Evaluate
from tasks.params.train import Train
from tasks.prepared import SPLITS, Card, Split, SplitName

PREDICTIONS = "reports/predictions.csv"
SUSPECTS = "reports/suspects.csv"
SAMPLES_PNG = "reports/samples.png"
PREDICTIONS_PNG = "reports/predictions.png"
SUSPECTS_PNG = "reports/suspects.png"
HELD: tuple[SplitName, ...] = ("validation", "test")  # whose logits are


def main() -> None:
    with stage(
        "evaluate",
        reads=["data/prepared", PTH, JSON],
        params=["evaluate", "train.threads"],
        writes=[SAMPLES_PNG, PREDICTIONS_PNG, SUSPECTS_PNG, PREDICTIONS, SUSPECTS, EVALUATION],
    ) as running:
        params = section.load(Evaluate)
        device = set_up(section.load(Train).threads)
        print(f"Using {device} device, {torch.get_num_threads()} CPU threads", flush=True)
        card = Card.read()
        model, _ = classifier.load()
        model.to(device)
        splits = {split: Split.read(split) for split in SPLITS}
        # Training images are many, so that their logits are not held.
        with apart(device):
            held = {split: predict(model, splits[split], params.batch_size, device) for split in HELD}
            training_images = scores.score(model, splits["train"], params.batch_size, device)
        labels = {split: torch.from_numpy(splits[split].labels) for split in HELD}
        scored: dict[SplitName, Scores] = {
            "train": training_images,
            **{split: scores.of(held[split], labels[split]) for split in HELD},
        }

        fitted = temperature.fit(held["validation"], labels["validation"])
        calibrated = scores.of(held["test"], labels["test"], fitted.value)
        evaluation = measure(scored["test"], card.class_names, fitted, calibrated)
        doubted = suspects(scored, card.class_names)
        write_json(running.path(EVALUATION), asdict(evaluation))
        write_predictions(running.path(PREDICTIONS), scored["test"], card.class_names)
        write_suspects(running.path(SUSPECTS), doubted)
        pictures.samples(splits["train"], card.class_names, params.pictures).savefig(running.path(SAMPLES_PNG))
        predicted = pictures.predictions(splits["test"], scored["test"].predicted, card.class_names, params.pictures)
        predicted.savefig(running.path(PREDICTIONS_PNG))
        pictures.suspects(splits, doubted[: params.pictures]).savefig(running.path(SUSPECTS_PNG))
    print(
        f"Test: accuracy {evaluation.accuracy:.1%}, average loss {evaluation.loss:.6f}, "
        f"calibration error {evaluation.calibration_error:.1%}, {evaluation.samples:,} images"
    )
    after = evaluation.calibrated
    print(
        f"Temperature {fitted.value:g}, of {fitted.images:,} validation images: "
        f"{fitted.remark or f'average loss {after.loss:.6f}, calibration error {after.calibration_error:.1%}'}"
    )


def write_predictions(path: Path, test: Scores, class_names: list[str]) -> None:
    """Write a row for each test image, in order; DVC draws its confusion matrix from it."""
    rows = zip(test.labels.tolist(), test.predicted.tolist(), test.confidence, test.loss, strict=True)
    tables.write(
        path,
        ("actual", "predicted", "confidence", "loss"),
        ((class_names[a], class_names[b], f"{confidence:.6f}", f"{loss:.6f}") for a, b, confidence, loss in rows),
    )


def write_suspects(path: Path, doubted: list[Suspect]) -> None:
    tables.write(
        path,
        ("image", "split", "index", "label", "predicted", "confidence", "loss"),
        (
            (s.image, s.split, str(s.index), s.label, s.predicted, f"{s.confidence:.6f}", f"{s.loss:.6f}")
            for s in doubted
        ),
    )


if __name__ == "__main__":
    raise SystemExit("the stages have one door: python -m tasks evaluate")
