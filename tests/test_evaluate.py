"""evaluate: the metrics against counts by hand, and the pictures."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.calibration import calibration_curve

from tasks import evaluate, pictures, scores, train, transform
from tasks.prepared import SPLITS, Card, Split
from tests.conftest import idx, made_images, write_params

NAMES = ["cat", "dog", "eel"]


def logits_for(predicted: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), 3).float() * 5


def test_metrics_are_those_counted_by_hand() -> None:
    metrics = evaluate.measure(scores.of(logits_for([0, 0, 1, 1, 2]), torch.tensor([0, 0, 0, 1, 1])), NAMES)
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    assert metrics["samples"] == 5
    assert metrics["confusion_matrix"] == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert metrics["per_class"]["cat"] == pytest.approx({"precision": 1, "recall": 2 / 3, "f1": 4 / 5, "support": 3})
    assert metrics["per_class"]["dog"] == pytest.approx(
        {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2}
    )
    right, wrong = -np.log(np.exp(5) / (np.exp(5) + 2)), -np.log(1 / (np.exp(5) + 2))
    assert metrics["loss"] == pytest.approx((3 * right + 2 * wrong) / 5, rel=1e-6)


def test_a_class_without_images_and_predictions_scores_zero() -> None:
    metrics = evaluate.measure(scores.of(logits_for([0, 1]), torch.tensor([0, 1])), NAMES)
    assert metrics["per_class"]["eel"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_the_stage_writes_its_reports(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = json.loads((evaluated / "metrics.json").read_text())
    assert metrics["schema_version"] == 1
    assert list(metrics["per_class"]) == Card.read().class_names
    with (evaluated / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["actual"] for row in rows] == [Card.read().class_names[k] for k in Split.read("test").labels]
    assert sum(row["actual"] == row["predicted"] for row in rows) / len(rows) == metrics["accuracy"]
    for row in rows:
        right = row["actual"] == row["predicted"]
        assert not right or float(row["loss"]) == pytest.approx(-np.log(float(row["confidence"])), abs=1e-4)
    for name in ("samples.png", "predictions.png", "suspects.png"):
        with Image.open(evaluated / name) as picture:
            assert min(picture.size) > 100


def test_the_same_model_gives_the_same_bytes(evaluated: Path) -> None:
    names = [path.name for path in evaluated.iterdir() if path.name not in ("data.json", "learning_curve.csv")]
    assert len(names) == 6
    first = [(evaluated / name).read_bytes() for name in names]
    evaluate.main()
    assert [(evaluated / name).read_bytes() for name in names] == first


def test_the_batch_size_does_not_change_what_is_measured(evaluated: Path) -> None:
    first = json.loads((evaluated / "metrics.json").read_text())
    write_params(evaluate={"batch_size": 1})
    evaluate.main()
    second = json.loads((evaluated / "metrics.json").read_text())
    for name in ("loss", "calibration_error"):
        assert second.pop(name) == pytest.approx(first.pop(name), rel=1e-5)
    for row, other in zip(second.pop("calibration"), first.pop("calibration"), strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    assert second == first


def test_calibration_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn((5000, 3), generator=generator)
    labels = torch.multinomial((logits / 2).softmax(1), 1, generator=generator).squeeze(1)  # it is too sure of itself
    found = scores.of(logits, labels)
    bins = scores.calibration(found)
    right, sure = calibration_curve(found.predicted == found.labels, found.confidence, n_bins=scores.BINS)
    assert [row["accuracy"] for row in bins] == pytest.approx(right.tolist())
    assert [row["confidence"] for row in bins] == pytest.approx(sure.tolist())
    assert sum(row["images"] for row in bins) == 5000
    gaps = np.repeat(np.abs(right - sure), [int(row["images"]) for row in bins])
    assert scores.calibration_error(bins) == pytest.approx(gaps.mean())
    assert scores.calibration_error(bins) > 0.05


def test_images_with_a_wrong_label_are_the_first_suspects(raw: Path) -> None:
    """Images that are bright on the left or on the right, of which one in eleven is labelled as the other."""
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 2
    images = generator.integers(0, 128, (200, 28, 28, 1), np.uint8)
    images[labels == 0, :, :14] += 127
    images[labels == 1, :, 14:] += 127
    wrong = set(range(0, 200, 11))
    given = np.array([1 - label if index in wrong else label for index, label in enumerate(labels)])
    (raw / "train-images-idx3-ubyte").write_bytes(idx(images))
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(given))
    write_params(train={"epochs": 5}, evaluate={"pictures": 8})
    transform.main()
    train.main()
    evaluate.main()
    pixels = {image.tobytes(): index for index, image in enumerate(images)}
    with Path("reports/suspects.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] != "test"]
    found = set()
    for row in rows[: len(wrong)]:
        place = re.fullmatch(r"(train|validation)\[(\d+)\]", row["image"])
        assert place
        found.add(pixels[Split.read(row["split"]).images[int(place[2])].tobytes()])  # type: ignore[arg-type]
        assert row["label"] != row["predicted"]
    assert len(found & wrong) >= 18  # of 19


def test_of_many_suspects_those_with_the_highest_loss_are_kept(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "SUSPECTED", 3)
    scored = {
        split: scores.of(torch.tensor([[float(loss), 0.0, 0.0] for loss in losses]), torch.ones(4, dtype=torch.int64))
        for split, losses in zip(SPLITS, ([1, 5, 2, 3], [4, 9, 1, 1], [2, 2, 8, 2]), strict=True)
    }
    found = evaluate.suspects(scored, NAMES)
    assert [suspect.image for suspect in found] == ["validation[1]", "test[2]", "train[1]"]


def test_a_model_that_agrees_with_every_label_has_no_suspects(evaluated: Path) -> None:
    certain = {split: scores.of(logits_for([0, 1]), torch.tensor([0, 1])) for split in SPLITS}
    assert evaluate.suspects(certain, NAMES) == []
    assert "0 images" in pictures.suspects([], []).get_suptitle()


def test_samples_show_each_class_in_turn_under_its_name() -> None:
    images, labels = made_images(8)
    figure = pictures.samples(Split(images, labels), ["even", "odd"], 5)
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == ["even", "odd", "even", "odd", "even"]
    for drawn, image in zip(axis.images, images[:5], strict=True):
        assert np.array_equal(np.asarray(drawn.get_array()), image[..., 0])


def test_mistakes_are_marked() -> None:
    images, labels = made_images(4)
    figure = pictures.predictions(Split(images, labels), np.array([0, 0, 1, 1]), ["even", "odd"], 4)
    texts = figure.axes[0].texts
    assert [text.get_text() for text in texts] == ["even", "✗ even\nis odd", "✗ odd\nis even", "odd"]
    assert [text.get_color() == "black" for text in texts] == [True, False, False, True]
    assert "2 mistakes" in figure.get_suptitle()
