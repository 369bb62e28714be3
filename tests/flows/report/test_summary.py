"""What a run came to: on the terminal, and in reports/run.json."""

import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.report import summary, verdicts
from tasks.__main__ import STAGES
from tasks.dvc import Outcome, StageRun
from tasks.evaluation.record import ClassScores
from tasks.gates.verdict import Figure
from tasks.harness.records import write_json
from tasks.training.record import Usage
from tests.support.reports import DATA, METRICS, QUALITY, SCORES, write_evaluation, write_reports, write_verdict


@pytest.fixture(autouse=True)
def reports(workspace: Path) -> None:
    """Of a run whose two gates have passed."""
    write_reports()


def runs(outcome: Outcome = "ran") -> list[StageRun]:
    return [StageRun(stage, outcome, 4.0) for stage in STAGES]


def test_the_table_has_the_scores_the_gates_and_the_stages() -> None:
    printed = summary.summary(runs())
    assert printed.splitlines() == [
        "accuracy   81.2% of 2,000 test images",
        "loss       0.5123",
        "data       passed: images 9,000",
        "parity     passed: provider CPU, images 1,000, largest logit error 2.861e-06,",
        "           ties -",
        *(f"{stage:<10} ran           4.0 s" for stage in STAGES),
        "training   4,512 images/s, peak memory 812 MB",
        "models     models/model.onnx, models/model.pth",
        "reports    reports/evaluation.json, reports/predictions.png; a page: make report",
    ]


def test_a_gate_that_is_added_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "GATES", (*verdicts.GATES, QUALITY))
    write_verdict("quality", figures={"margin": 0.01})
    assert "\nquality    passed: margin 0.01\n" in summary.summary(runs())


def test_the_8_bit_model_has_its_line_where_the_run_made_one() -> None:
    write_verdict("int8", figures={"accuracy": 0.8})  # of this run, or left by an earlier one
    printed = summary.summary([*runs(), StageRun("quantize", "ran", 3.0)])
    assert "\nint8       passed: accuracy 0.8\n" in printed
    assert "\nmodels     models/model.onnx, models/model.pth, models/model.int8.onnx\n" in printed
    assert "int8" not in summary.summary(runs())


@pytest.mark.parametrize(
    ("figures", "loss"), [({"temperature": 0.9}, "0.5000"), ({"temperature": 1.0}, "0.5123"), ({}, "0.5123")]
)
def test_the_loss_is_that_of_what_is_served(figures: dict[str, Figure], loss: str) -> None:
    write_verdict("parity", figures=figures)
    assert f"\nloss       {loss}\n" in summary.summary(runs())


def test_a_calibrated_model_is_looked_at_by_what_it_serves() -> None:
    write_evaluation(calibration_error=0.3)
    write_verdict("parity", figures={"temperature": 0.9})
    assert "calibration error above" not in summary.summary(runs())
    write_verdict("parity", figures={"temperature": 1.0})
    assert "look at    calibration error above 10%: 30.0%" in summary.summary(runs())


def test_what_a_person_should_look_at_comes_last() -> None:
    assert summary.remarks(DATA, METRICS) == []
    data = {
        "leaked": 3,
        "conflicts": 1,
        "unreadable": [{"image": "a.png", "reason": "broken"}],
        "nearly_constant": 1200,
        "incomplete": ["dog"],
    }
    write_json(summary.DATA, {**json.loads(summary.DATA.read_text()), **data})
    weak = {name: replace(SCORES, recall=recall) for name, recall in (("cat", 0.021), ("eel", 0.003), ("dog", 0.5))}
    weak["of no test image"] = ClassScores(0, 0, 0, 0)
    write_evaluation(per_class=weak, calibration_error=0.24112)
    assert summary.summary(runs()).splitlines()[-8:] == [
        "look at    test images that are among the training images, allowed by",
        "           transform.on_leak: 3",
        "look at    images under several classes: 1",
        "look at    images left out, because they cannot be read: 1",
        "look at    nearly constant images: 1,200",
        "look at    classes without images in some split: dog",
        "look at    weak classes, recall at most 50% of the accuracy: eel 0.3%, cat 2.1%",
        "look at    calibration error above 10%: 24.1%",
    ]


@pytest.mark.parametrize(("accuracy", "recall", "weak"), [(0.3, 0.16, False), (0.98, 0.49, True), (0.0, 0.0, True)])
def test_a_class_is_weak_beside_the_accuracy(accuracy: float, recall: float, weak: bool) -> None:
    scores = {"cat": replace(SCORES, recall=recall), "dog": replace(SCORES, recall=1.0)}
    remarks = summary.remarks(DATA, replace(METRICS, accuracy=accuracy, per_class=scores))
    assert remarks == [f"weak classes, recall at most 50% of the accuracy: cat {recall:.1%}"] * weak


def test_a_remark_names_ten_classes_and_says_how_many_there_are_more() -> None:
    scores = {f"class {number}": replace(SCORES, recall=number / 1000) for number in reversed(range(37))}
    (remark,) = summary.remarks(DATA, replace(METRICS, per_class=scores))
    assert ": class 0 0.0%, class 1 0.1%, " in remark
    assert remark.endswith(", class 9 0.9% and 27 more")


def test_the_table_is_not_wider_than_a_terminal() -> None:
    names = [f"a class with a long name {number}" for number in range(9)]
    write_verdict("data", figures={f"some figure {number}": 123456 for number in range(5)})
    write_evaluation(per_class={name: replace(SCORES, recall=0.1) for name in names})
    printed = summary.summary(runs())
    assert max(map(len, printed.splitlines())) <= 80
    two = "some figure 0 123,456, some figure 1 123,456"
    assert f"data       passed: {two}, some figure 2\n           123,456, some figure 3 " in printed
    assert all(name in " ".join(printed.split()) for name in names)


def test_run_json_holds_what_may_differ_between_two_runs() -> None:
    summary.write_run(runs(), datetime.now(UTC) - timedelta(seconds=20))
    run = json.loads(summary.RUN.read_text())
    assert list(run["stages"]) == list(STAGES)
    assert run["stages"]["train"] == {"outcome": "ran", "seconds": 4.0}
    assert run["training"] == {"images_per_s": 4512.5, "peak_memory_mb": 812.0, "peak_gpu_memory_mb": None}
    assert 20 <= run["seconds"] < 30
    summary.write_run(runs("restored"), datetime.now(UTC))
    assert json.loads(summary.RUN.read_text())["training"] is None, "it did not run"
    usage = Usage(images_per_s=1e5, peak_memory_mb=2e3, peak_gpu_memory_mb=1234.4)
    assert str(usage) == "100,000 images/s, peak memory 2,000 MB, of the GPU's 1,234 MB"


def test_the_figures_belong_to_a_lock_and_a_revision() -> None:
    assert (summary.lock_digest(), summary._git_revision()) == (None, None)
    summary.LOCK.write_text("")
    assert summary.lock_digest() == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "all")):
        subprocess.run((*git, *words), check=True)
    clean = summary._git_revision()
    assert clean
    assert len(clean) == 40
    summary.LOCK.write_text("changed")
    assert summary._git_revision() == f"{clean}-dirty"
