"""evaluate: its reports, the same from the same model whatever the batch size."""

import csv
import json
import re
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy

from tasks import evaluate
from tasks.evaluation import tables, temperature
from tasks.evaluation.record import Evaluation, Temperature
from tasks.model import classifier
from tasks.model.batches import predict
from tasks.prepared import Card, Split
from tests.support.params import write_params

BEFORE = ("data.json", "learning_curve.csv", "training.json")  # reports of the stages before


def test_the_stage_writes_its_reports(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = json.loads((evaluated / "evaluation.json").read_text())
    assert list(metrics) == ["schema_version", *(field.name for field in fields(Evaluation))]
    assert metrics == {"schema_version": 1, **asdict(Evaluation.read())}
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


def test_a_class_named_like_a_formula_is_none_to_a_spreadsheet_and_a_name_to_the_report(evaluated: Path) -> None:
    for path in (Path("data/prepared/dataset.json"), Path("models/model.json")):
        path.write_text(path.read_text().replace("T-shirt/top", "=1+1").replace("Trouser", "@cat"))
    evaluate.main()
    for name, columns in {"predictions.csv": ("actual", "predicted"), "suspects.csv": ("label", "predicted")}.items():
        assert not re.search(r"(^|,)\"?[=@]", (evaluated / name).read_text(), re.MULTILINE)
        rows = tables.read(evaluated / name)
        assert rows
        assert {row[column] for row in rows for column in columns} == {"=1+1", "@cat"}


def test_the_temperature_is_that_of_the_validation_images_and_shown_on_the_test_images(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[int]] = []

    def fit(_: Tensor, labels: Tensor) -> Temperature:
        asked.append(labels.tolist())
        return Temperature(4.0, len(labels), None)

    before = [(evaluated / name).read_bytes() for name in ("predictions.csv", "suspects.csv")]
    monkeypatch.setattr(temperature, "fit", fit)
    evaluate.main()
    assert asked == [Split.read("validation").labels.tolist()]
    found, logits = Evaluation.read(), predict(classifier.load()[0], Split.read("test"), 5, torch.device("cpu"))
    labels = torch.from_numpy(Split.read("test").labels)
    assert found.loss == pytest.approx(float(cross_entropy(logits, labels)), rel=1e-5)
    assert found.calibrated.loss == pytest.approx(float(cross_entropy(logits / 4, labels)), rel=1e-5)
    assert [(evaluated / name).read_bytes() for name in ("predictions.csv", "suspects.csv")] == before
    assert "\nTemperature 4, of 2 validation images: average loss" in capsys.readouterr().out


def test_the_same_model_gives_the_same_bytes(evaluated: Path) -> None:
    names = [path.name for path in evaluated.iterdir() if path.name not in BEFORE]
    assert len(names) == 6
    first = [(evaluated / name).read_bytes() for name in names]
    evaluate.main()
    assert [(evaluated / name).read_bytes() for name in names] == first


def test_the_batch_size_does_not_change_what_is_measured(evaluated: Path) -> None:
    first = json.loads((evaluated / "evaluation.json").read_text())
    write_params(evaluate={"batch_size": 1})
    evaluate.main()
    second = json.loads((evaluated / "evaluation.json").read_text())
    for here, there in ((second, first), (second.pop("calibrated"), first.pop("calibrated"))):
        for name in ("loss", "calibration_error"):
            assert here.pop(name) == pytest.approx(there.pop(name), rel=1e-4)
        for row, other in zip(here.pop("calibration"), there.pop("calibration"), strict=True):
            assert row == pytest.approx(other, rel=1e-4)
    assert second == first
