"""What a run came to: on the terminal, and in reports/run.json."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.report import summary, verdicts
from tasks.__main__ import STAGES
from tasks.dvc import Outcome, StageRun
from tasks.harness.records import write_json
from tests.support.params import write_params
from tests.support.reports import DATA, METRICS, QUALITY, SCORES, write_reports, write_verdict


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
        "parity     passed: provider CPU, images 1,000, largest logit error 2.861e-06, ties -",
        *(f"{stage:<10} ran           4.0 s" for stage in STAGES),
        "models     models/model.onnx, models/model.pth",
        "reports    reports/metrics.json, reports/parity.json, reports/predictions.png; as a page: make report",
    ]


def test_a_gate_that_is_added_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "GATES", (*verdicts.GATES, QUALITY))
    write_verdict("quality", figures={"margin": 0.01})
    assert "\nquality    passed: margin 0.01\n" in summary.summary(runs())


def test_what_a_person_should_look_at_comes_last() -> None:
    assert summary.remarks(DATA, METRICS) == []
    data = {"leaked": 3, "conflicts": 1, "unreadable": ["a.png"], "nearly_constant": 1200, "incomplete": ["dog"]}
    write_json(summary.DATA, {**json.loads(summary.DATA.read_text()), **data})
    missed = {"cat": SCORES | {"recall": 0.0}, "of no test image": SCORES | {"recall": 0.0, "support": 0}}
    write_json(summary.EVALUATION, METRICS | {"per_class": missed})
    assert summary.summary(runs()).splitlines()[-6:] == [
        "look at    test images that are among the training images, allowed by transform.on_leak: 3",
        "look at    images under several classes: 1",
        "look at    images left out, because they cannot be read: 1",
        "look at    nearly constant images: 1,200",
        "look at    classes without images in some split: dog",
        "look at    classes of which no test image is recognised: cat",
    ]


def test_run_json_holds_what_may_differ_between_two_runs() -> None:
    write_params(train={"epochs": 10})
    summary.write_run(runs(), datetime.now(UTC) - timedelta(seconds=20))
    run = json.loads(summary.RUN.read_text())
    assert list(run["stages"]) == list(STAGES)
    assert run["stages"]["train"] == {"outcome": "ran", "seconds": 4.0}
    assert run["training_images_per_s"] == 6000 * 10 / 4
    assert 20 <= run["seconds"] < 30
    summary.write_run(runs("restored"), datetime.now(UTC))
    assert json.loads(summary.RUN.read_text())["training_images_per_s"] is None, "it did not run"


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
