"""The temperature: what it is fitted to, and that it is bounded and said where nothing determines it."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tasks.evaluation import scores, temperature


def drawn(sure: float, count: int = 5000) -> tuple[Tensor, Tensor]:
    """Draw logits, and labels by their probabilities; the logits are then made `sure` times too large."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn((count, 4), generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return sure * logits, labels


@pytest.mark.parametrize("sure", [0.25, 1, 3])
def test_it_takes_back_by_how_much_the_logits_are_too_large_or_small(sure: float) -> None:
    fitted = temperature.fit(*drawn(sure))
    assert fitted.value == pytest.approx(sure, rel=0.06)
    assert (fitted.images, fitted.remark) == (5000, None)


@pytest.mark.parametrize(("sure", "count"), [(0.25, 5000), (3, 5000), (2, 40)])
def test_no_temperature_nearby_has_a_lower_loss(sure: float, count: int) -> None:
    logits, labels = drawn(sure, count)
    best = temperature.fit(logits, labels).value
    losses = [float(cross_entropy(logits.double() / (best * factor), labels)) for factor in (0.98, 1, 1.02)]
    assert min(losses) == losses[1]


def test_it_changes_no_prediction_and_brings_confidence_to_accuracy() -> None:
    logits, labels = drawn(3)
    before, after = scores.of(logits, labels), scores.of(logits, labels, temperature.fit(logits, labels).value)
    np.testing.assert_array_equal(before.predicted, after.predicted)
    assert scores.reliability(after).loss < scores.reliability(before).loss
    assert scores.reliability(after).calibration_error < 0.03 < 0.1 < scores.reliability(before).calibration_error


def test_a_class_without_images_and_one_that_is_never_predicted_are_no_hindrance() -> None:
    logits, labels = drawn(2)
    logits[:, 3] = -1e4
    assert temperature.fit(logits[labels < 2], labels[labels < 2]).remark is None


ALL_RIGHT = (torch.tensor([[0.1, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]))
ALL_WRONG = (torch.tensor([[0.1, 0.0], [0.0, 2.0]]), torch.tensor([1, 0]))
CONSTANT = (torch.full((3, 2), 7.0), torch.tensor([0, 1, 1]))
ONE_IMAGE = (torch.tensor([[3.0, 1.0]]), torch.tensor([0]))
HUGE_AND_RIGHT = (torch.tensor([[3e38, -3e38], [-3e38, 3e38]]), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    "found", [ALL_RIGHT, ALL_WRONG, CONSTANT, ONE_IMAGE, HUGE_AND_RIGHT], ids=str.split("right wrong constant one huge")
)
def test_where_the_images_do_not_determine_it_it_stays_1_and_says_so(found: tuple[Tensor, Tensor]) -> None:
    fitted = temperature.fit(*found)
    assert (fitted.value, fitted.images) == (1, len(found[1]))
    assert fitted.remark == (
        f"the loss on {fitted.images} validation images is lowest at no temperature between 0.1 and 10, as where all "
        "are predicted right or the logits say nothing"
    )


def test_values_beyond_what_an_exponential_holds_are_no_hindrance() -> None:
    logits, labels = torch.tensor([[9e3, 0], [9e3, 0], [0.0, 1.0]]), torch.tensor([0, 0, 0])
    assert 0.1 <= temperature.fit(logits, labels).value <= 10
