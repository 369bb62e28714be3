"""The drift gate: what it warns of, what blocks a night, and how often it is wrong."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.gates.drift import STATISTICS, Arrived, Reference, judge, statistics
from tasks.gates.quality import Answers
from tasks.gates.verdict import Verdict
from tasks.params.retraining import Arrivals

NAMES = ["boot", "shirt", "bag"]
PARAMS = Arrivals(min_images=50, p=0.001, distance=0.1, max_constant=0.05, max_gone=0.2)
ACCURACY = 0.9


def drawn(seed: int, images: int, shift: float = 0.0) -> NDArray[np.float32]:
    """Pixel statistics of images; `shift` in standard deviations of the brightness."""
    values = np.random.default_rng(seed).normal(100, 20, (images, len(STATISTICS)))
    values[:, 0] += 20 * shift
    return values.astype(np.float32)


def answers(seed: int, images: int, accuracy: float = ACCURACY, classes: int = 3) -> Answers:
    """Answers as a model gives them, to images of which so many are shown another class than the model sees."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    right = random.random(images) < accuracy
    other = (labels + random.integers(1, 3, images)) % 3
    given, labels = (
        (labels, np.where(right, labels, other)) if classes == 3 else (np.where(right, labels, other), labels)
    )
    sure = random.uniform(0.6, 1, images)
    probabilities = np.repeat(((1 - sure) / 2)[:, None], 3, axis=1)
    probabilities[np.arange(images), given] = sure
    return Answers(probabilities.astype(np.float32), labels)


def known() -> Reference:
    return Reference(
        np.arange(9000, dtype=np.uint64), np.array([3000] * 3), drawn(0, 2000), answers(0, 2000).probabilities
    )


def judged(
    images: int = 1000, *, seed: int = 1, shift: float = 0, gone: float = 0, new: Answers | None = None
) -> Verdict:
    new = new or answers(seed, images)
    counts = np.bincount(new.labels, minlength=3)
    return judge(known(), Arrived(drawn(seed, images, shift), new, counts, gone), ACCURACY, NAMES, PARAMS)


def test_images_like_those_before_pass_without_a_word() -> None:
    verdict = judged()
    assert verdict.passed
    assert verdict.reasons == []
    assert verdict.figures["arrivals"] == 1000


def test_of_two_hundred_nights_without_drift_hardly_one_is_warned_of() -> None:
    warned = sum(bool(judged(300, seed=seed).reasons) for seed in range(1, 201))
    assert warned <= 3  # three kinds of tests at 0.001 each: 0.6 are to be expected at most


def test_brighter_images_are_a_warning_that_names_what_has_changed() -> None:
    verdict = judged(shift=1)
    assert verdict.passed
    (reason,) = verdict.reasons
    assert reason.startswith("brightness has drifted: D = 0.3")


def test_a_drift_that_is_certain_but_small_is_none() -> None:
    assert judged(50_000, shift=0.15).reasons == []


def test_other_shares_of_classes_are_a_warning() -> None:
    verdict = judged(new=answers(1, 1000, classes=2))
    assert verdict.passed
    assert "classes have other shares among the arrivals: total variation 0.33" in " ".join(verdict.reasons)


def test_arrivals_that_the_model_knows_worse_are_a_warning() -> None:
    verdict = judged(new=answers(1, 1000, 0.8))
    assert verdict.passed
    (reason,) = verdict.reasons
    assert reason.startswith("the model in service is right for ")


def test_shuffled_labels_block() -> None:
    verdict = judged(new=answers(1, 1000, 1 / 3))
    assert verdict.outcome == "failed"
    (reason,) = verdict.reasons
    assert reason.startswith("the model in service contradicts the labels of the arrivals, which may be shuffled")


def test_shuffled_labels_of_few_images_are_not_certain_enough_to_block() -> None:
    assert judged(60, new=answers(1, 60, 1 / 3)).passed


def test_one_class_alone_blocks() -> None:
    verdict = judged(new=answers(1, 1000, classes=1))
    assert verdict.outcome == "failed"
    assert verdict.reasons == ["all 1,000 arrivals are labelled boot"]


@pytest.mark.parametrize(("black", "outcome"), [(5, "passed"), (6, "failed")])
def test_black_images_block(black: int, outcome: str) -> None:
    new, described = answers(1, 100), drawn(1, 100)
    described[:black] = statistics(np.zeros((black, 8, 8, 3), np.uint8))
    arrived = Arrived(described, new, np.bincount(new.labels, minlength=3), 0.0)
    verdict = judge(known(), arrived, ACCURACY, NAMES, PARAMS)
    assert verdict.outcome == outcome
    if outcome == "failed":
        (reason,) = verdict.reasons
        assert reason == "6.0% of the arrivals are nearly constant images, retraining.arrivals.max_constant is 5.0%"


@pytest.mark.parametrize("images", [0, 49, 1000])
def test_images_that_are_gone_block_however_few_have_come(images: int) -> None:
    verdict = judged(images, gone=0.21)
    assert verdict.outcome == "failed"
    assert verdict.reasons[0].startswith("21.0% of the training images of the model in service are gone")


@pytest.mark.parametrize("images", [0, 49])
def test_few_arrivals_are_not_looked_at(images: int) -> None:
    verdict = judged(images)
    assert verdict.outcome == "not run"
    assert verdict.reasons == [f"{images} images have arrived, and retraining.arrivals.min_images is 50"]


def test_statistics_are_those_of_the_pixels() -> None:
    images = np.zeros((3, 4, 4, 3), np.uint8)
    images[1] = 200
    images[2, :, ::2, 0] = 90  # red stripes
    found = statistics(images)
    assert found[0].tolist() == [0, 0, 0, 0]
    assert found[1].tolist() == [200, 0, 0, 0]
    assert found[2] == pytest.approx([15, 45, 30, 20])
    assert statistics(np.zeros((1, 1, 1, 1), np.uint8)).tolist() == [[0, 0, 0, 0]]
