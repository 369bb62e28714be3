"""The quality gate: its statistics against scipy, published figures and simulation, and what it lets pass."""

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import log_loss
from torch import Tensor

from tasks.evaluation import scores
from tasks.gates.quality import LEVEL, Answers, Difference, Recall, holm, judge, recalls
from tasks.gates.verdict import Verdict
from tasks.params.retraining import Retraining, Rule

NAMES = ["boot", "shirt"]
IMAGES = 2000
LABELS = np.arange(IMAGES) % 2
ARRIVALS = {
    "min_images": 50,
    "p": 0.001,
    "distance": 0.1,
    "max_constant": 0.05,
    "max_gone": 0.2,
    "min_agreement": 0.5,
    "certainty": 0.999,
}


def params(**changes: object) -> Retraining:
    values = {
        "rule": "better",
        "min_accuracy": None,
        "min_recall": None,
        "max_latency_ms": 1.0,
        "max_memory_mb": 1,
        "approval": False,
        "git_tags": False,
        "keep_days": 1,
        "arrivals": ARRIVALS,
    }
    return Retraining.model_validate(values | changes)


def answers(
    wrong: range | list[int] = range(0), sure: float | None = None, labels: NDArray[np.int64] = LABELS
) -> Answers:
    """Answers that are right but for some images, each with the same confidence: as sure as they are right."""
    right = np.ones(len(labels), bool)
    right[list(wrong)] = False
    sure = max(0.51, float(right.mean())) if sure is None else sure
    probabilities = np.full((len(labels), 2), 1 - sure, np.float32)
    probabilities[np.arange(len(labels)), np.where(right, labels, 1 - labels)] = sure
    return Answers(probabilities, labels)


def judged(champion: Answers, candidate: Answers, rule: Rule = "better", last: Answers | None = None) -> Verdict:
    return judge(NAMES, candidate, champion, params(rule=rule), last)


def test_the_test_is_the_binomial_one_of_scipy() -> None:
    for worse, better in ((0, 0), (0, 7), (31, 52), (52, 31), (400, 470)):
        expected = binomtest(better, worse + better, 0.5, "greater").pvalue if worse + better else 1
        assert Difference(10_000, worse, better).p_better == expected


@pytest.mark.parametrize("together", [7, 8, 50, 501])
def test_what_would_have_passed_is_the_least_that_does(together: int) -> None:
    needed = Difference(1000, together, 0).needed
    assert needed
    assert Difference(1000, together - needed, needed).p_better <= LEVEL
    assert Difference(1000, together - needed + 1, needed - 1).p_better > LEVEL


def test_of_six_images_none_would_have_been_enough() -> None:
    assert Difference(1000, 3, 3).needed is None
    assert Difference(1000, 0, 6).p_better > LEVEL


@pytest.mark.parametrize(
    ("images", "differs", "points"),
    [
        (10_000, 0.02, 0.46),
        (10_000, 0.05, 0.72),
        (10_000, 0.1, 1.01),
        (360, 0.02, None),
        (360, 0.05, 3.8),
        (360, 0.1, 5.4),
    ],
)
def test_the_smallest_gain_is_that_of_the_design(images: int, differs: float, points: float | None) -> None:
    together = round(images * differs)
    gain = Difference(images, together // 2, together - together // 2).smallest_gain
    assert (None if gain is None else 100 * gain) == (points if points is None else pytest.approx(points, abs=0.05))


def test_the_smallest_gain_is_found_in_four_of_five_simulated_tests() -> None:
    random = np.random.default_rng(0)
    images, share = 2000, 0.05
    gain = Difference(images, 50, 50).smallest_gain
    assert gain is not None
    cells = random.multinomial(images, [(share - gain) / 2, (share + gain) / 2, 1 - share], 2000)
    found = np.mean([passes(images, int(worse), int(better)) for worse, better, _ in cells])
    assert found == pytest.approx(0.8, abs=4 * np.sqrt(0.8 * 0.2 / 2000))


def test_a_month_of_equal_recipes_swaps_seldom_and_hardly_ever_for_a_worse_one() -> None:
    """Thirty nights, of candidates whose true accuracies differ by their seeds: standard deviation 0.2 points."""
    random = np.random.default_rng(0)
    months, images, differs, spread = 300, 10_000, 0.05, 0.002
    swaps = {"better": np.zeros((months, 2)), "higher": np.zeros((months, 2))}
    for rule, counts in swaps.items():
        for month in range(months):
            champion = random.normal(0, spread)
            for _ in range(30):
                candidate = random.normal(0, spread)
                together = int(random.binomial(images, differs))
                share = np.clip(0.5 + (candidate - champion) / (2 * differs), 0, 1)
                better = int(random.binomial(together, share))
                worse = together - better
                if passes(images, worse, better) if rule == "better" else better > worse:
                    counts[month] += 1, candidate < champion
                    champion = candidate
    for rule, expected in (("better", (0.78, 0.03)), ("higher", (7.7, 3.35))):
        error = swaps[rule].std(0, ddof=1) / np.sqrt(months)
        assert swaps[rule].mean(0) == pytest.approx(expected, abs=4 * float(error.max()))


@cache
def passes(images: int, worse: int, better: int) -> bool:
    return Difference(images, worse, better).p_better <= LEVEL


def test_holm_is_as_in_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_calibration_and_loss_are_those_that_others_compute() -> None:
    logits: Tensor = 3 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(500) % 4
    own = Answers(logits.softmax(1).numpy(), labels.numpy())
    expected = scores.reliability(scores.of(logits, labels)).calibration_error
    assert own.calibration_error == pytest.approx(expected, abs=1e-6)
    assert own.losses.mean() == pytest.approx(log_loss(own.labels, own.probabilities), rel=1e-5)


def test_the_first_model_has_but_the_floors_to_pass() -> None:
    assert judge(NAMES, answers(range(900)), None, params(min_accuracy=0.5)).passed
    verdict = judge(NAMES, answers(range(1100)), None, params(min_accuracy=0.5, min_recall=0.46))
    assert verdict.reasons == [
        "accuracy 45.00% is below retraining.min_accuracy, 50.00%",
        "recall of boot, 45.00%, is below retraining.min_recall, 46.00%",
        "recall of shirt, 45.00%, is below retraining.min_recall, 46.00%",
    ]


def test_a_better_model_passes_and_says_by_how_much() -> None:
    verdict = judged(answers(range(100)), answers(range(60)))
    assert verdict.passed
    assert verdict.figures["gain"] == pytest.approx(0.02)
    assert (verdict.figures["better"], verdict.figures["worse"]) == (40, 0)


def test_an_equal_model_fails_and_is_told_what_would_pass() -> None:
    verdict = judged(answers(range(50)), answers(range(50, 100)))
    assert verdict.outcome == "failed"
    (reason,) = verdict.reasons
    assert reason == (
        "not shown to be better than the champion: of 2,000 images 50 are right with the candidate alone, 50 with the "
        "champion alone (gain +0.00%, p = 0.54, 0.01 is needed: 63 to 37 would pass)"
    )


def test_the_same_model_fails() -> None:
    verdict = judged(answers(range(9)), answers(range(9)))
    assert not verdict.passed
    assert "too few to tell" in verdict.reasons[0]


def test_by_the_other_rule_a_model_that_is_not_worse_passes() -> None:
    few = range(4)
    assert judged(answers(few), answers(few), "not_worse").passed
    verdict = judged(answers(range(50)), answers(range(50, 110)), "not_worse")
    assert verdict.outcome == "failed"
    assert "with 95 % certainty it loses at most 1.36%, and less than 0.50% would pass" in verdict.reasons[0]


def test_small_losses_do_not_add_up() -> None:
    """Three hundredths of a point a night are nothing, but not of the model that was found better."""
    champion, candidate = answers(range(12)), answers(range(13))
    assert judged(champion, candidate, "not_worse").passed
    verdict = judged(champion, candidate, "not_worse", last=answers())
    assert verdict.reasons == [
        reason for reason in verdict.reasons if "the last model that was promoted as better" in reason
    ]
    assert verdict.outcome == "failed"


def test_a_class_that_is_known_worse_fails_a_model_that_is_better() -> None:
    boots = [index for index in range(IMAGES) if LABELS[index] == 0]
    shirts = [index for index in range(IMAGES) if LABELS[index] == 1]
    verdict = judged(answers(shirts[:200]), answers(boots[:30]))
    assert verdict.figures["gain"] == pytest.approx(0.085)
    assert verdict.reasons == [
        "boot is known worse: recall -3.00% of 1,000 images (p = 1.9e-09 over all classes); -2.00% would pass"
    ]
    assert judged(answers(shirts[:200]), answers(boots[:20])).passed


def test_a_small_class_may_lose_few_images() -> None:
    labels = np.zeros(1000, np.int64)
    labels[:20] = 1  # whose losses are no proof by themselves
    champion = answers(range(500, 600), labels=labels)
    assert judged(champion, answers(range(4), labels=labels)).passed
    verdict = judged(champion, answers(range(5), labels=labels))
    assert verdict.reasons == ["shirt loses 5 of its 20 images; 4 would pass"]


def test_classes_are_compared_by_their_recall_and_one_without_images_is_left_out() -> None:
    labels, sure = np.array([2, 0, 0, 0, 0]), np.eye(3, dtype=np.float32)
    candidate, champion = Answers(sure[[2, 0, 0, 0, 1]], labels), Answers(sure[[0, 0, 1, 2, 1]], labels)
    expected = [Recall("boot", 4, 0.75, 0.25), Recall("shirt", 1, 1.0, 0.0)]
    assert recalls(["boot", "bag", "shirt"], candidate, champion) == expected


def test_probabilities_that_mean_less_than_before_fail_a_better_model() -> None:
    verdict = judged(answers(range(200), sure=0.9), answers(range(100), sure=0.99))
    assert [reason.partition(" rises")[0] for reason in verdict.reasons] == ["the calibration error"]
    verdict = judged(answers(range(200), sure=0.9), answers(range(150), sure=0.6))
    assert [reason.partition(" rises")[0] for reason in verdict.reasons] == ["the calibration error", "the log loss"]
    assert judged(answers(range(200), sure=0.9), answers(range(150), sure=0.92)).passed


def test_a_probability_of_0_is_no_infinite_loss() -> None:
    assert np.isfinite(answers([0], sure=1.0).losses).all()
