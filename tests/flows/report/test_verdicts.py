"""Verdicts: read in their order, whatever the gates are."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.report import verdicts
from tasks.gates import parity
from tasks.gates.verdict import Figure, Verdict
from tasks.harness.errors import StageError
from tasks.harness.records import write_json
from tests.support.reports import QUALITY, write_reports, write_verdict

BEFORE_EXPORT = ["download", "transform", "train", "evaluate"]


@pytest.fixture(autouse=True)
def reports(workspace: Path) -> None:
    """Of a run whose two gates have passed."""
    write_reports()


def outcomes(**where: Any) -> list[str]:
    return [verdict.outcome for verdict in verdicts.read(**where)]


def test_what_all_gates_have_passed_is_verified() -> None:
    assert outcomes() == ["passed", "passed"]
    proven = "Verified: the data passed their checks; the ONNX model predicts what the .pth model predicts"
    assert verdicts.headline(verdicts.read()) == proven


def test_with_remarks_the_headline_is_no_all_clear() -> None:
    proven = "Proven: the data passed their checks; the ONNX model predicts what the .pth model predicts"
    found = verdicts.read()
    assert verdicts.headline(found, ["nearly constant images: 3"]) == f"Look at 1 remark before it goes live. {proven}"
    assert verdicts.headline(found, ["a", "b"]) == f"Look at 2 remarks before it goes live. {proven}"
    write_verdict("data", "failed", reasons=["3 leaks"])
    assert verdicts.headline(verdicts.read(), ["a"]) == "Withheld, data failed: 3 leaks"


def test_a_line_says_the_first_five_figures() -> None:
    figures: dict[str, Figure] = {
        "provider": "CPU",
        "images": 1000,
        "largest logit error": 2.8612e-6,
        "ties": None,
        "nodes": 7,
        "x": 1,
    }
    line = verdicts.line(Verdict("parity", "passed", [], figures))
    assert line == "passed: provider CPU, images 1,000, largest logit error 2.861e-06, ties -, nodes 7"


def test_a_gate_after_one_that_failed_has_not_run() -> None:
    write_verdict("data", "failed", reasons=["3 leaks:\n  a.png", "one class"])
    assert outcomes() == ["failed", "not run"]
    assert verdicts.headline(verdicts.read()) == "Withheld, data failed: 3 leaks:; one class"
    assert verdicts.line(verdicts.read()[0]) == "failed: 3 leaks:; one class"


def test_a_gate_after_one_that_has_not_run_has_not_run() -> None:
    Path("reports/data.json").unlink()
    assert outcomes() == ["not run", "not run"]
    assert verdicts.headline(verdicts.read()) == "Not verified yet: data has not run"


def test_a_gate_without_a_report_has_not_run() -> None:
    Path("reports/parity.json").unlink()
    assert outcomes() == ["passed", "not run"]
    assert verdicts.headline(verdicts.read()) == "Not verified yet: parity has not run"


def test_a_report_of_an_earlier_version_is_no_verdict() -> None:
    write_json(Path("reports/parity.json"), {"passed": True, "reason": ""})
    assert outcomes() == ["passed", "not run"]
    assert "an earlier version" in verdicts.read()[1].reasons[0]


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        ({"passed": True}, r"verdict\.passed: unknown key; verdict\.gate: missing; verdict\.outcome: missing; "),
        ("passed", "verdict = 'passed': input should be an object; "),
        (None, "verdict = None: input should be an object; "),
        (
            {"gate": "parity", "outcome": "fine", "reasons": [], "figures": {}},
            r"verdict\.outcome = 'fine': input should be",
        ),
        (
            {"gate": "parity", "outcome": "failed", "reasons": 5, "figures": {}},
            r"verdict\.reasons = 5: input should be",
        ),
        (
            {"gate": "parity", "outcome": "passed", "reasons": [], "figures": []},
            r"verdict\.figures = \[\]: input should",
        ),
    ],
)
def test_a_report_that_is_none_is_refused(verdict: Any, reason: str) -> None:
    write_json(Path("reports/parity.json"), {"verdict": verdict})
    with pytest.raises(StageError, match=rf"^reports/parity\.json is refused, .*: {reason}.*run dvc repro$"):
        verdicts.read()


def test_a_verdict_of_an_earlier_run_is_not_this_runs() -> None:
    assert outcomes(ended=BEFORE_EXPORT) == ["passed", "not run"]
    write_verdict("parity", "failed", reasons=["a logit differs"])
    assert outcomes(ended=BEFORE_EXPORT) == ["passed", "failed"], "a gate that fails does not let its stage end"


def test_a_new_gate_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The headline has it without another line; so have the summary, the artifact and the page, see their tests."""
    monkeypatch.setattr(verdicts, "GATES", (verdicts.GATES[0], QUALITY, verdicts.GATES[1]))
    assert outcomes() == ["passed", "not run", "not run"]
    write_verdict("quality", "failed", reasons=["it is worse"])
    assert outcomes() == ["passed", "failed", "not run"]
    assert verdicts.headline(verdicts.read()) == "Withheld, quality failed: it is worse"
    write_verdict("quality")
    assert outcomes() == ["passed"] * 3
    assert "; it is no worse than the one that serves; " in verdicts.headline(verdicts.read())


def test_the_shape_is_the_one_that_gates_write() -> None:
    report = parity.Report(["a logit differs"], 1e-4, max_abs_error=0.5)
    write_json(Path("reports/parity.json"), json.loads(json.dumps(report.contents())))
    verdict = verdicts.read()[1]
    assert (verdict.gate, verdict.outcome, verdict.reasons) == ("parity", "failed", ["a logit differs"])
    assert verdict.figures == report.figures()
