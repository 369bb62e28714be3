"""The parity gate: what passes, what fails, and why."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from tasks.gates import parity
from tasks.gates.parity import Report, Scores, judge, measure
from tasks.prepared import Images
from tests.support.made import made_images

TOLERANCE = 1e-4
# One sample a row; the two best logits of the last are closer than twice the tolerance.
REFERENCE = np.array([[3, 1, 0], [0, 2, 1], [1, 0, 4], [2, 2 + 1.5e-4, 0]] * 500, np.float32)
LABELS = np.array([0, 1, 2, 0] * 500)


def judged(
    *logits: Scores, reference: Scores = REFERENCE, probabilities: Scores | None = None, temperature: float = 1
) -> Report:
    runs = {
        2**n: measure(reference, temperature, each, softmax(each) if probabilities is None else probabilities)
        for n, each in enumerate(logits)
    }
    return judge(reference, runs, LABELS, TOLERANCE)


def softmax(logits: Scores) -> Scores:
    exponentials = np.exp(logits)
    probabilities: Scores = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def changed(row: int, column: int, value: float) -> Scores:
    logits = REFERENCE.copy()
    logits[row, column] = value
    return logits


def test_equal_logits_pass() -> None:
    found = judged(REFERENCE, REFERENCE)
    assert found.passed
    assert (found.reasons, found.samples, found.max_abs_error, found.ties) == ([], 2000, 0, 0)
    assert (found.label_agreement, found.accuracy_pth, found.accuracy_onnx) == (1, 0.75, 0.75)
    assert found.batch_sizes == [{"size": 1, "max_abs_error": 0}, {"size": 2, "max_abs_error": 0}]


def test_an_error_within_the_tolerance_passes_and_is_measured() -> None:
    found = judged(REFERENCE, changed(5, 1, 2 + 9e-5))
    assert found.passed
    assert found.max_abs_error == pytest.approx(9e-5, rel=1e-2)
    assert [entry["max_abs_error"] > 0 for entry in found.batch_sizes] == [False, True]


def test_one_logit_beyond_the_tolerance_fails_and_is_named() -> None:
    found = judged(REFERENCE, changed(5, 1, 2.01))
    assert not found.passed
    assert found.reasons[0] == "the logits of test image 5 at batch size 2 differ by 0.01, export.tolerance is 0.0001"
    worst = found.worst_samples[0]
    assert (worst["index"], worst["batch_size"], worst["actual"], worst["pth"], worst["onnx"]) == (5, 2, 1, 1, 1)


def test_another_label_fails_even_where_the_logits_are_close_enough() -> None:
    reference = REFERENCE.copy()
    reference[0] = (1, 1 - 3e-4, 0)  # no tie: farther apart than twice the tolerance
    logits = reference.copy()
    logits[0] = (1 - 2e-4, 1 - 1e-4, 0)
    found = judged(logits, reference=reference)
    assert "1 labels differ, the first of test image 0" in found.reasons


def test_another_label_in_a_tie_is_counted_and_passes() -> None:
    logits = REFERENCE.copy()
    logits[3] = (2 + 9e-5, 2 + 6e-5, 0)
    found = judged(REFERENCE, logits)
    assert found.passed
    assert (found.ties, found.label_agreement) == (1, 1 - 1 / 2000)
    assert (found.accuracy_pth, found.accuracy_onnx) == (0.75, 0.75 + 1 / 2000)


def test_more_ties_than_one_in_a_thousand_fail() -> None:
    logits = REFERENCE.copy()
    logits[[3, 7]] = (2 + 9e-5, 2 + 6e-5, 0)
    assert judged(logits).passed
    logits[11] = (2 + 9e-5, 2 + 6e-5, 0)
    assert judged(logits).reasons == [
        "3 of 2000 samples are ties, more than 0.1%",
        "the largest logit error, 8.99e-05 of test image 3, is within export.tolerance, 0.0001",
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_fails(value: float) -> None:
    for found in (
        judged(changed(9, 2, value), probabilities=softmax(REFERENCE)),
        judged(REFERENCE, reference=changed(9, 2, value)),
    ):
        assert not found.passed
        assert found.max_abs_error is None
        assert found.reasons[0].startswith("the logits of test image 9 at batch size 1 differ by inf")


def test_probabilities_are_compared_too() -> None:
    probabilities = softmax(REFERENCE)
    probabilities[4, 0] += 1e-3
    found = judged(REFERENCE, probabilities=probabilities)
    assert found.reasons[0].startswith("a probability differs by 0.001, ")


def test_probabilities_are_compared_at_the_temperature_that_they_should_have() -> None:
    calibrated = softmax(REFERENCE / np.float32(1.5))
    assert judged(REFERENCE, probabilities=calibrated, temperature=1.5).passed
    for served, expected in ((softmax(REFERENCE), 1.5), (calibrated, 1), (calibrated, 1.501), (calibrated, 1 / 1.5)):
        found = judged(REFERENCE, probabilities=served, temperature=expected)
        assert re.match(r"a probability differs by 0\.\d+, export.tolerance is 0.0001$", found.reasons[0])
        assert found.max_abs_error == 0


@pytest.mark.parametrize(("value", "outcome"), [(2, "passed"), (2.01, "failed"), (np.inf, "failed")])
def test_parity_json_holds_the_verdict_beside_what_was_measured(value: float, outcome: str) -> None:
    found = judged(changed(5, 1, value), probabilities=softmax(REFERENCE))
    contents = json.loads(json.dumps(found.contents(), allow_nan=False))
    verdict = contents["verdict"]
    assert (verdict["gate"], verdict["outcome"], verdict["reasons"]) == ("parity", outcome, found.reasons)
    assert contents["passed"] == (outcome == "passed")
    assert "reasons" not in contents
    assert verdict["figures"]["largest logit error"] == contents["max_abs_error"] == found.max_abs_error
    assert verdict["figures"]["images"] == contents["samples"] == 2000


def test_every_batch_is_full() -> None:
    sent = []

    def answer(_: object, inputs: dict[str, Images]) -> list[Scores]:
        sent.append(len(inputs["images"]))
        return [inputs["images"].sum((1, 2, 3), np.float32)[:, np.newaxis]] * 2

    images = made_images(5)[0]
    for size in (1, 3, 5, 12):
        logits, _ = parity.run(SimpleNamespace(run=answer), images, size)
        assert logits[:, 0].tolist() == images.sum((1, 2, 3), np.float32).tolist()
    assert sent == [1] * 5 + [3, 3] + [5] + [12]
