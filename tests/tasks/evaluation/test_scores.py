"""Scores of each image and of all: compared with counts by hand and with scikit-learn."""

from dataclasses import astuple

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from tasks.evaluation import scores
from tasks.evaluation.calibration import calibration, calibration_error
from tasks.evaluation.record import BINS, ClassScores, Evaluation, Temperature

NAMES = ["cat", "dog", "eel"]


def logits_for(predicted: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), 3).float() * 5


def measured(logits: torch.Tensor, labels: torch.Tensor) -> Evaluation:
    calibrated = scores.of(logits, labels, 2.5)
    return scores.measure(scores.of(logits, labels), NAMES, Temperature(2.5, 9, None), calibrated)


def test_metrics_are_those_counted_by_hand() -> None:
    metrics = measured(logits_for([0, 0, 1, 1, 2]), torch.tensor([0, 0, 0, 1, 1]))
    assert metrics.accuracy == pytest.approx(3 / 5)
    assert metrics.samples == 5
    assert metrics.confusion_matrix == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert astuple(metrics.per_class["cat"]) == pytest.approx((1, 2 / 3, 4 / 5, 3))
    assert astuple(metrics.per_class["dog"]) == pytest.approx((1 / 2, 1 / 2, 1 / 2, 2))
    right, wrong = -np.log(np.exp(5) / (np.exp(5) + 2)), -np.log(1 / (np.exp(5) + 2))
    assert metrics.loss == pytest.approx((3 * right + 2 * wrong) / 5, rel=1e-6)
    sure = np.exp(2) / (np.exp(2) + 2)  # logits of 5, divided by 2.5
    assert metrics.calibration_error == pytest.approx(np.exp(5) / (np.exp(5) + 2) - 3 / 5, rel=1e-6)
    assert metrics.calibrated.calibration_error == pytest.approx(sure - 3 / 5, rel=1e-6)
    assert metrics.calibrated.loss == pytest.approx((3 * -np.log(sure) + 2 * -np.log((1 - sure) / 2)) / 5, rel=1e-6)


def test_a_class_without_images_and_predictions_scores_zero() -> None:
    metrics = measured(logits_for([0, 1]), torch.tensor([0, 1]))
    assert metrics.per_class["eel"] == ClassScores(precision=0, recall=0, f1=0, support=0)


def test_calibration_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn((5000, 3), generator=generator)
    labels = torch.multinomial((logits / 2).softmax(1), 1, generator=generator).squeeze(1)  # it is too sure of itself
    found = scores.of(logits, labels)
    bins = calibration(found.confidence, found.predicted == found.labels)
    right, sure = calibration_curve(found.predicted == found.labels, found.confidence, n_bins=BINS)
    assert [row.accuracy for row in bins] == pytest.approx(right.tolist())
    assert [row.confidence for row in bins] == pytest.approx(sure.tolist())
    assert sum(row.images for row in bins) == 5000
    gaps = np.repeat(np.abs(right - sure), [row.images for row in bins])
    assert calibration_error(bins) == pytest.approx(gaps.mean())
    assert calibration_error(bins) > 0.05
