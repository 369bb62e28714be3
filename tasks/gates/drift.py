"""The drift gate: are the images that have arrived since the model in service was trained like those that it knows?

What is compared are the arrivals alone, because among a hundred thousand old images a thousand odd ones are not seen.
Four figures of their pixels, and each probability that the model in service gives them, are compared by a two-sample
test: of what Rabanser et al. tried (Failing Loudly, NeurIPS 2019), tests of the probabilities found most. That is a
warning, since drift is a reason to train. What would make a worse model of a good one blocks the training: images of
nothing, one class alone, labels that the model contradicts.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, chi2_contingency, fisher_exact, ks_2samp

from tasks.data.checks import NEARLY_CONSTANT
from tasks.gates.quality import Answers
from tasks.gates.verdict import Figure, Verdict
from tasks.params.retraining import Arrivals
from tasks.prepared import Images

STATISTICS = ("brightness", "contrast", "sharpness", "colour")

Floats = NDArray[np.float32]
Digests = NDArray[np.uint64]


@dataclass(frozen=True)
class Reference:
    """What is remembered of the images of a model: but for the last, of those that it was trained on."""

    digests: Digests  # uint64 [N], of all of them
    label_counts: NDArray[np.int64]  # [classes]
    statistics: Floats  # float32 [n, 4], of some of them
    probabilities: Floats  # float32 [n, classes], what the model makes of these
    test_digests: Digests | None = None  # uint64 [N], of those that it was judged on; None: that was not kept yet


@dataclass(frozen=True)
class Arrived:
    """What has arrived since: training images that are not among those of the reference."""

    statistics: Floats  # float32 [m, 4], of as many as were looked at
    answers: Answers  # of the model in service, to the same
    label_counts: NDArray[np.int64]  # [classes], of all of them

    @property
    def images(self) -> int:
        return int(self.label_counts.sum())


@dataclass(frozen=True)
class Recorded:
    """What the model in service came to on its test images when it went into service."""

    accuracy: float
    images: int


def statistics(images: Images, chosen: NDArray[np.int64]) -> Floats:
    """Describe the chosen ones of images `uint8 [N, H, W, C]` by four figures each, `float32 [n, 4]`, of 255 levels.

    The mean; the standard deviation, of the channel where it is largest; how far neighbours in a row differ on average;
    and how far the channels of a pixel are from its mean on average, which is 0 of grey images.
    """
    described = np.zeros((len(chosen), len(STATISTICS)), np.float32)
    for row, index in zip(described, chosen, strict=True):
        pixels = images[index].astype(np.float32)
        across = np.abs(np.diff(pixels, axis=1))
        colour = np.abs(pixels - pixels.mean(2, keepdims=True))
        contrast = pixels.std((0, 1)).max()
        row[:] = pixels.mean(), contrast, across.mean() if across.size else 0, colour.mean()
    return described


def gone(share: float, params: Arrivals) -> list[str]:
    """Say why so many images of the reference that are no longer there, a share of them, block the training."""
    if share <= params.max_gone:
        return []
    return [
        f"{share:.1%} of the training images of the model in service are gone, "
        f"retraining.arrivals.max_gone is {params.max_gone:.1%}"
    ]


def judge(
    reference: Reference, arrived: Arrived, recorded: Recorded, class_names: list[str], params: Arrivals
) -> Verdict:
    """Judge what has arrived, an image at least.

    Returns:
        Failed with the reasons to block the training; or passed, its reasons being what a person should know.
    """
    right, looked_at = int(arrived.answers.right.sum()), len(arrived.answers.labels)
    figures: dict[str, Figure] = {
        "arrivals": arrived.images,
        "accuracy of the model in service": right / looked_at,
        "its recorded accuracy": recorded.accuracy,
    }
    blocks = _blocks(arrived, right, recorded.accuracy, class_names, params)
    warnings = _drifted(reference, arrived, class_names, params)
    warnings += _labels(reference, arrived, params)
    before = round(recorded.accuracy * recorded.images)
    # Fisher's exact test, because the recorded accuracy is one of so many images, too.
    table = [[right, looked_at - right], [before, recorded.images - before]]
    if (p := float(fisher_exact(table, "less").pvalue)) < params.p:
        warnings.append(
            f"the model in service is right for {right / looked_at:.1%} of the arrivals, and was for "
            f"{recorded.accuracy:.1%} of its test images (p = {p:.2g})"
        )
    return Verdict("arrivals", "failed" if blocks else "passed", blocks or warnings, figures)


def _blocks(arrived: Arrived, right: int, accuracy: float, class_names: list[str], params: Arrivals) -> list[str]:
    reasons = []
    constant = float((arrived.statistics[:, STATISTICS.index("contrast")] < NEARLY_CONSTANT).mean())
    if constant > params.max_constant:
        reasons.append(
            f"{constant:.1%} of the arrivals are nearly constant images, "
            f"retraining.arrivals.max_constant is {params.max_constant:.1%}"
        )
    if len(class_names) > 1 and (arrived.label_counts > 0).sum() == 1:
        reasons.append(
            f"all {arrived.images:,} arrivals are labelled {class_names[int(arrived.label_counts.argmax())]}"
        )
    answered = len(arrived.answers.labels)
    interval: Any = binomtest(right, answered).proportion_ci(2 * params.certainty - 1, method="exact")
    said = np.bincount(arrived.answers.probabilities.argmax(1), minlength=len(class_names)) / answered
    chance = min(accuracy, float(said @ arrived.label_counts / arrived.images))  # what shuffled labels would give
    if interval.high < (least := chance + params.min_agreement * (accuracy - chance)):
        share = right / answered
        reasons.append(
            "the model in service contradicts the labels of the arrivals, which may be shuffled: it is right for "
            f"{share:.1%}, with {100 * params.certainty:g} % certainty for {interval.high:.1%} at most, where "
            f"retraining.arrivals.min_agreement asks for {least:.1%}; it was for {accuracy:.1%} of its test images"
        )
    return reasons


def _drifted(reference: Reference, arrived: Arrived, class_names: list[str], params: Arrivals) -> list[str]:
    """Compare the distributions by Kolmogorov and Smirnov's two-sample test, with Bonferroni's correction."""
    names = [*STATISTICS, *(f"probability of {name}" for name in class_names)]
    before = np.concatenate([reference.statistics, reference.probabilities], axis=1)
    now = np.concatenate([arrived.statistics, arrived.answers.probabilities], axis=1)
    reasons = []
    for name, old, new in zip(names, before.T, now.T, strict=True):
        test: Any = ks_2samp(old, new, method="asymp")  # the exact p-value of thousands of images is beyond its reach
        if test.pvalue * len(names) < params.p and test.statistic >= params.distance:
            reasons.append(
                f"{name} has drifted: D = {test.statistic:.2f}, p = {test.pvalue * len(names):.2g} over all, median "
                f"{np.median(old):.3g} before, {np.median(new):.3g} now"
            )
    return reasons


def _labels(reference: Reference, arrived: Arrived, params: Arrivals) -> list[str]:
    """Compare how many images each class has: by the chi-squared test, and by how far the shares are apart."""
    counts = np.stack([reference.label_counts, arrived.label_counts])
    counts = counts[:, counts.any(0)]
    if counts.shape[1] < 2:
        return []
    p = float(chi2_contingency(counts).pvalue)
    shares = counts / counts.sum(1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)  # total variation
    if p >= params.p or distance < params.distance:
        return []
    return [f"classes have other shares among the arrivals: total variation {distance:.2f}, p = {p:.2g}"]
