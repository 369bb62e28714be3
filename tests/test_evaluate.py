"""evaluate: the metrics against counts by hand, and the pictures."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks import evaluate, pictures
from tasks.prepared import Card, Split
from tests.conftest import made_images, write_params

NAMES = ["cat", "dog", "eel"]


def logits_for(predicted: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), 3).float() * 5


def test_metrics_are_those_counted_by_hand() -> None:
    metrics = evaluate.measure(logits_for([0, 0, 1, 1, 2]), torch.tensor([0, 0, 0, 1, 1]), NAMES)
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
    metrics = evaluate.measure(logits_for([0, 1]), torch.tensor([0, 1]), NAMES)
    assert metrics["per_class"]["eel"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_the_stage_writes_its_reports(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = json.loads((evaluated / "metrics.json").read_text())
    assert metrics["schema_version"] == 1
    assert list(metrics["per_class"]) == Card.read().class_names
    with (evaluated / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["actual"] for row in rows] == [Card.read().class_names[k] for k in Split.read("test").labels]
    assert sum(row["actual"] == row["predicted"] for row in rows) / len(rows) == metrics["accuracy"]
    for name in ("samples.png", "predictions.png"):
        with Image.open(evaluated / name) as picture:
            assert min(picture.size) > 100


def test_the_same_model_gives_the_same_bytes(evaluated: Path) -> None:
    names = ("metrics.json", "predictions.csv", "samples.png", "predictions.png")
    first = [(evaluated / name).read_bytes() for name in names]
    evaluate.main()
    assert [(evaluated / name).read_bytes() for name in names] == first


def test_the_batch_size_does_not_change_what_is_measured(evaluated: Path) -> None:
    first = json.loads((evaluated / "metrics.json").read_text())
    write_params(evaluate={"batch_size": 1})
    evaluate.main()
    second = json.loads((evaluated / "metrics.json").read_text())
    assert second.pop("loss") == pytest.approx(first.pop("loss"), rel=1e-5)
    assert second == first


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
