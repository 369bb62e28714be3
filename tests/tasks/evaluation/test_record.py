"""reports/evaluation.json: read as it was written, and refused where no stage can have written it."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tasks.evaluation.record import EVALUATION, Bin, ClassScores, Evaluation
from tasks.harness.errors import StageError
from tasks.harness.records import write_json
from tests.support.params import ROOT

CAT, DOG = ClassScores(0.5, 0.75, 0.6, 4), ClassScores(0, 0, 0, 0)
WRITTEN = Evaluation(0.75, 0.5, 0.05, 4, {"cat": CAT, "dog": DOG}, [[3, 1], [0, 0]], [Bin(0.8, 0.75, 4)])


@pytest.fixture(autouse=True)
def reports(workspace: Path) -> None:
    Path("reports").mkdir()


def test_it_is_read_as_it_was_written() -> None:
    write_json(Path(EVALUATION), asdict(WRITTEN))
    assert Evaluation.read() == WRITTEN


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
