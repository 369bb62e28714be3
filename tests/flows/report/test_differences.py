"""What differs between two runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from flows.report import differences, verdicts
from flows.report.differences import Difference
from tasks.gates.verdict import report
from tasks.harness.records import write_json
from tests.support.reports import DATA, QUALITY, write_evaluation


def test_a_change_has_a_direction_where_there_are_two_numbers() -> None:
    assert Difference("x", 1, 3).change == 2
    assert Difference("x", None, 3).change is None
    assert Difference("x", "a", "b").change is None
    assert Difference("x", False, True).change is None


def test_parameters_are_compared_key_by_key(tmp_path: Path) -> None:
    texts = {"before": "train: {epochs: 5, seed: 0}\nold: {key: a}", "now": "train: {epochs: 7, seed: 0}\nnew: 1"}
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "params.yaml").write_text(text)
    assert differences.parameters(tmp_path / "before", tmp_path / "now") == [
        Difference("train.epochs", 5, 7),
        Difference("new", None, 1),
        Difference("old.key", "a", None),
    ]


def test_a_model_that_became_calibrated_has_another_calibration_error(tmp_path: Path) -> None:
    for name, temperature in (("before", 1.0), ("now", 0.9)):
        (tmp_path / name / "reports").mkdir(parents=True)
        write_evaluation(tmp_path / name)
        write_json(tmp_path / name / "reports/data.json", DATA.contents())
        write_json(tmp_path / name / "reports/parity.json", report("parity", [], {"temperature": temperature}, {}))
    found = differences.results(tmp_path / "before", tmp_path / "now")
    assert Difference("calibration error", 0.05, 0.01) in found
    assert Difference("loss", 0.51234, 0.5) in found


def test_results_are_compared_to_six_digits_and_with_the_figures_of_every_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "GATES", (verdicts.GATES[0], QUALITY))
    for name, accuracy, loss, margin in (("before", 0.5, 1.0, 0.01), ("now", 0.75, 1.0 + 1e-7, 0.02)):
        reports = tmp_path / name / "reports"
        reports.mkdir(parents=True)
        classes: list[dict[str, str | int]] = [{"name": "cat", "train": 6, "validation": 2, "test": 8}]
        write_json(reports / "data.json", replace(DATA, classes=classes).contents())
        write_evaluation(tmp_path / name, accuracy=accuracy, loss=loss)
        write_json(reports / "quality.json", report("quality", [], {"margin": margin}, {}))
    assert differences.results(tmp_path / "before", tmp_path / "now") == [
        Difference("accuracy", 0.5, 0.75),
        Difference("quality: margin", 0.01, 0.02),
    ]
