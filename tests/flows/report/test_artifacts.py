"""What Prefect's UI shows of a run."""

from pathlib import Path
from typing import Any

import pytest

from flows.report import artifacts, verdicts
from flows.runtime import labels
from tasks.__main__ import STAGES
from tasks.dvc import StageRun
from tests.support.reports import QUALITY, write_evaluation, write_reports, write_verdict

ALL = [StageRun(stage, "ran", 1.25) for stage in STAGES]


@pytest.fixture(autouse=True)
def reports(workspace: Path) -> None:
    """Of a run whose two gates have passed."""
    write_reports()


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The artifacts that would be sent to Prefect, by their key."""
    sent: dict[str, dict[str, Any]] = {}
    for kind in ("table", "markdown"):
        create = f"create_{kind}_artifact"
        monkeypatch.setattr(artifacts, create, lambda key, **values: sent.update({key: values}))
    monkeypatch.setattr(labels, "checkout", lambda: "Pets_2-1a2b3c")
    return sent


def test_the_metrics_are_a_table_of_the_classes(created: dict[str, dict[str, Any]]) -> None:
    artifacts.publish(ALL)
    assert created["metrics-pets-2-1a2b3c"] == {
        "description": "Accuracy 81.25%, loss 0.5123, 2,000 images",
        "table": [
            {"class": name, "precision": 0.5, "recall": 0.75, "f1": 0.3333, "support": 1000} for name in ("cat", "dog")
        ],
    }


def test_the_report_begins_with_the_headline_and_names_every_gate_and_stage(
    created: dict[str, dict[str, Any]],
) -> None:
    artifacts.publish(ALL)
    lines = created["report-pets-2-1a2b3c"]["markdown"].splitlines()
    assert lines[0] == (
        "# Verified: the data passed their checks; the ONNX model predicts what the .pth model predicts"
    )
    assert lines[2:4] == [
        "- **data** passed: images 9,000",
        "- **parity** passed: provider CPU, images 1,000, largest logit error 2.861e-06, ties -",
    ]
    assert "**Accuracy 81.25%**, loss 0.5123: 2,000 test images of pets." in lines
    assert lines[-5:] == [f"| {stage} | ran | 1.2 |" for stage in STAGES]


def test_a_calibrated_model_has_the_loss_that_it_serves(created: dict[str, dict[str, Any]]) -> None:
    write_verdict("parity", figures={"temperature": 0.9})
    artifacts.publish(ALL)
    assert "loss 0.5000" in created["metrics-pets-2-1a2b3c"]["description"]
    assert "**Accuracy 81.25%**, loss 0.5000: " in created["report-pets-2-1a2b3c"]["markdown"]


def test_what_is_to_be_looked_at_is_no_all_clear(created: dict[str, dict[str, Any]]) -> None:
    write_evaluation(calibration_error=0.25)
    artifacts.publish(ALL)
    text = created["report-pets-2-1a2b3c"]["markdown"]
    assert text.startswith("# Look at 1 remark before it goes live. Proven: the data passed their checks; ")
    assert "\n- look at calibration error above 10%: 25.0%\n" in text


def test_a_gate_that_is_added_is_in_the_report(
    created: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "GATES", (*verdicts.GATES, QUALITY))
    write_verdict("quality", figures={"margin": 0.01})
    artifacts.publish(ALL)
    assert "\n- **quality** passed: margin 0.01\n" in created["report-pets-2-1a2b3c"]["markdown"]


def test_a_run_whose_export_failed_does_not_show_the_verdict_of_an_earlier_one(
    created: dict[str, dict[str, Any]],
) -> None:
    artifacts.publish(ALL[:-1])
    text = created["report-pets-2-1a2b3c"]["markdown"]
    assert text.startswith("# Not verified yet: parity has not run\n")
    assert "\n- **parity** not run: the stage export has not come to it\n" in text
    assert text.endswith("| evaluate | ran | 1.2 |\n| export | failed | |\n")
    write_verdict("parity", "failed", reasons=["a logit differs"])
    artifacts.publish(ALL[:-1])
    assert created["report-pets-2-1a2b3c"]["markdown"].startswith("# Withheld, parity failed: a logit differs\n")
