"""reports/evaluation.json: read as it was written, and refused where no stage can have written it."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tasks.evaluation.record import EVALUATION, Bin, ClassScores, Evaluation, Reliability, Temperature
from tasks.harness.errors import StageError
from tasks.harness.records import write_json
from tests.support.params import ROOT

CAT, DOG = ClassScores(0.5, 0.75, 0.6, 4), ClassScores(0, 0, 0, 0)
CALIBRATED = Reliability(0.4, 0.01, [Bin(0.76, 0.75, 4)])
WRITTEN = Evaluation(
    accuracy=0.75,
    loss=0.5,
    calibration_error=0.05,
    samples=4,
    per_class={"cat": CAT, "dog": DOG},
    confusion_matrix=[[3, 1], [0, 0]],
    calibration=[Bin(0.8, 0.75, 4)],
    temperature=Temperature(1.5, 2, None),
    calibrated=CALIBRATED,
)


@pytest.fixture(autouse=True)
def reports(workspace: Path) -> None:
    Path("reports").mkdir()


def test_it_is_read_as_it_was_written() -> None:
    write_json(Path(EVALUATION), asdict(WRITTEN))
    assert Evaluation.read() == WRITTEN


def test_what_is_served_has_the_reliability_of_the_temperature_if_it_divides_by_it() -> None:
    assert WRITTEN.served(calibrated=False) == WRITTEN
    served = WRITTEN.served(calibrated=True)
    assert (served.loss, served.calibration_error, served.calibration) == (0.4, 0.01, [Bin(0.76, 0.75, 4)])
    assert (served.accuracy, served.confusion_matrix) == (WRITTEN.accuracy, WRITTEN.confusion_matrix)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"accuracy": 1.5}, r"accuracy = 1\.5: input should be less than or equal to 1"),
        ({"accuracy": "0.5"}, "accuracy = '0.5': input should be a valid number"),
        ({"loss": None}, "loss = None: input should be a valid number"),
        ({"samples": 0}, "samples = 0: input should be greater than or equal to 1"),
        ({"per_class": {"cat": asdict(CAT) | {"recall": -0.1}}}, r"per_class\.cat\.recall = -0\.1: "),
        ({"per_class": {"cat": {"recall": 0.1, "support": 1}}}, r"per_class\.cat\.precision: missing"),
        ({"per_class": {"dog": asdict(DOG)}}, "per_class = .*: should have at least one class with test images"),
        ({"confusion_matrix": [[3, 1]]}, "confusion_matrix should have a row and a column for each of the 2 classes"),
        ({"confusion_matrix": [[3], [1]]}, "confusion_matrix should have a row and a column for each of the 2 classes"),
        (
            {"confusion_matrix": [[2**63, 1], [0, 0]]},
            r"confusion_matrix\.0\.0 = 9223372036854775808: input should be less",
        ),
        ({"calibration": []}, r"calibration = \[\]: list should have at least 1 item"),
        ({"calibration": [{"confidence": 0.5, "accuracy": 1}]}, r"calibration\.0\.images: missing"),
        (
            {"temperature": {"value": 0, "images": 2, "remark": None}},
            r"temperature\.value = 0: input should be greater",
        ),
        ({"temperature": {"value": 1e9, "images": 2, "remark": None}}, r"temperature\.value = 1000000000\.0: input"),
        ({"calibrated": {"loss": 0.5}}, r"calibrated\.calibration_error: missing"),
    ],
)
def test_what_no_stage_wrote_is_refused_by_its_key(change: dict[str, Any], reason: str) -> None:
    write_json(Path(EVALUATION), asdict(WRITTEN) | change)
    with pytest.raises(StageError, match=rf"^reports/evaluation\.json is refused.*{reason}.*; run dvc repro$"):
        Evaluation.read()


def test_who_reads_it_need_not_wait_for_torch() -> None:
    script = "import sys, tasks.evaluation.record; print('torch' in sys.modules, 'sklearn' in sys.modules)"
    words = (sys.executable, "-c", script)
    answer = subprocess.run(words, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert answer.stdout == "False False\n"
