"""The gate of the 8-bit model: what passes, what fails, and why."""

import json

import numpy as np
import pytest

from tasks.gates.int8 import Report, gate, judge
from tasks.gates.parity import Scores
from tasks.params.quantize import Quantize
from tasks.prepared import Split
from tests.support import served
from tests.support.made import made_images

LIMITS = Quantize(to=["int8"], calibration_images=8, max_accuracy_drop=0.01, max_changed_labels=0.02)
LABELS = np.array([0, 1] * 50)
REFERENCE = np.array([[0.9, 0.1], [0.2, 0.8]] * 50, np.float32)  # all right


def judged(*changed: int, **other: float) -> Report:
    """Judge answers, at two batch sizes, of which those to the images `changed` are the other class at the second."""
    found = REFERENCE.copy()
    found[list(changed)] = found[list(changed), ::-1]
    return judge(REFERENCE, {1: REFERENCE, 64: found}, LABELS, LIMITS.model_copy(update=other), nodes=3)


def test_equal_answers_pass() -> None:
    found = judged()
    assert found.passed
    assert (found.accuracy_float32, found.accuracy_int8, found.changed_labels, found.samples) == (1, 1, 0, 100)
    assert (found.max_abs_error, found.between_batch_sizes, found.batch_sizes) == (0, 0, [1, 64])


def test_an_accuracy_and_labels_within_the_limits_pass_and_are_measured_at_the_worst_batch_size() -> None:
    found = judged(7)
    assert found.passed
    assert (found.accuracy_int8, found.changed_labels) == (0.99, 0.01)
    assert found.max_abs_error == found.between_batch_sizes == pytest.approx(0.6, rel=1e-6)


def test_a_lower_accuracy_and_other_labels_fail_each_by_its_own_limit() -> None:
    accuracy = "the accuracy falls by 0.0300, from 1.0000 to 0.9700, quantize.max_accuracy_drop is 0.01"
    labels = "3.00% of the test images get another label, quantize.max_changed_labels is 0.02"
    assert judged(1, 2, 3).reasons == [accuracy, labels]
    assert judged(1, 2, 3, max_changed_labels=0.03).reasons == [accuracy]
    assert judged(1, 2, 3, max_accuracy_drop=0.031).reasons == [labels]


def test_a_better_accuracy_is_no_drop() -> None:
    reference = REFERENCE.copy()
    reference[5] = reference[5, ::-1]
    assert judge(reference, {1: REFERENCE}, LABELS, LIMITS, nodes=3).passed


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_fails(value: float) -> None:
    found = REFERENCE.copy()
    found[0, 0] = value
    report = judge(REFERENCE, {1: found}, LABELS, LIMITS, nodes=3)
    assert report.reasons[0] == "its probabilities are not all finite"
    assert report.max_abs_error is None
    json.dumps(report.contents(), allow_nan=False)


def test_int8_json_holds_the_verdict_beside_what_was_measured() -> None:
    contents = judged(1, 2, 3).contents()
    verdict = contents["verdict"]
    assert (verdict["gate"], verdict["outcome"], len(verdict["reasons"])) == ("int8", "failed", 2)
    assert verdict["figures"]["accuracy"] == contents["accuracy_int8"] == 0.97
    assert "reasons" not in contents


def test_it_runs_the_model_at_every_batch_size_and_proves_the_provider() -> None:
    images = np.ascontiguousarray(made_images(6)[0][:, :4, :4])
    labels = np.array([1, 0] * 3)  # the model calls any image light
    reference: Scores = np.tile(np.array([0.1, 0.9], np.float32), (6, 1))
    limits = LIMITS.model_copy(update={"max_accuracy_drop": 0.0})
    found = gate(served.model().SerializeToString(), reference, Split(images, labels), limits, (1, 4))
    assert found.passed, found.reasons
    assert (found.provider, found.accuracy_int8, found.batch_sizes) == ("CPUExecutionProvider", 0.5, [1, 4])
    assert found.nodes > 0


def test_a_model_that_does_not_open_fails_with_the_reason() -> None:
    found = gate(b"no model", REFERENCE, Split(made_images(2)[0], LABELS[:2]), LIMITS, (1,))
    assert not found.passed
    assert found.provider is None
    assert found.reasons[0].startswith("CPUExecutionProvider cannot run the model: ")
