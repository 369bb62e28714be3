"""The quality gate: may a model take the place of the one in service, the champion?

Both answer the same test images, as ONNX models. What decides is how they differ: on `worse` images the champion is
right and the candidate wrong, on `better` images it is the other way round, and of equal models each of these is as
likely as the other. Classes and calibration are looked at as well, because a mean may hide what a user would notice.
"""

from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, binomtest

from tasks.evaluation.calibration import calibration, calibration_error
from tasks.gates.verdict import Figure, Verdict
from tasks.params.retraining import Retraining, Rule
from tasks.prepared import Labels

LEVEL = 0.01  # of the rule `better`: how often a candidate that is no better passes, at most
POWER = 0.8  # with which the smallest gain that could have been found is stated
# Of the rule `not_worse`: with 95 % certainty, no more than so much of the accuracy is lost.
LOSS, QUANTILE = 0.005, 1.645
# A class is worse where that is no accident (of all classes together) and more than so much of its recall is gone; or
# where it loses so many images and so large a share of them, whatever the reason.
CLASS_LEVEL, CLASS_RECALL = 0.05, 0.02
CLASS_IMAGES, CLASS_SHARE = 5, 0.1
# Calibration errors of equal models differ by 0.005, 0.013 and 0.020 at 10,000, 1,000 and 360 images (95 %).
CALIBRATION, CALIBRATION_OF_FEW, FEW = 0.02, 0.04, 1000
LOG_LOSS, LOG_LOSS_ERRORS = 0.05, 2.33  # of the champion's, and standard errors
TINY = 1e-12  # a probability of 0 would make the loss infinite

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """What a model makes of N test images."""

    probabilities: Probabilities  # float32 [N, classes]
    labels: Labels  # int64 [N], what the images are

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = self.probabilities.argmax(1) == self.labels
        return right

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """The cross-entropy of each image, `float64 [N]`."""
        of_labels = self.probabilities[np.arange(len(self.labels)), self.labels].astype(np.float64)
        losses: NDArray[np.float64] = -np.log(np.maximum(of_labels, TINY))
        return losses

    def of(self, chosen: NDArray[np.bool_]) -> "Answers":
        """Return the answers to the chosen images, `bool [N]`, alone."""
        return Answers(self.probabilities[chosen], self.labels[chosen])

    @property
    def calibration_error(self) -> float:
        return calibration_error(calibration(self.probabilities.max(1), self.right))

    def recall(self, label: int) -> float | None:
        """Return the share of the images of a class that it finds; None: there are none."""
        of_class = self.labels == label
        return float(self.right[of_class].mean()) if of_class.any() else None


@dataclass(frozen=True)
class Recall:
    """The share of the images of a class that two models find."""

    name: str
    images: int
    candidate: float
    champion: float


@dataclass(frozen=True)
class Difference:
    """On how many of some images two models differ, and how."""

    images: int
    worse: int  # the champion is right, the candidate is wrong
    better: int  # the other way round

    @classmethod
    def between(cls, champion: Answers, candidate: Answers) -> "Difference":
        worse = int((champion.right & ~candidate.right).sum())
        return cls(len(champion.labels), worse, int((candidate.right & ~champion.right).sum()))

    @property
    def gain(self) -> float:
        """The accuracy of the candidate minus that of the champion."""
        return (self.better - self.worse) / self.images

    @property
    def p_better(self) -> float:
        """How likely so many are better, or more, where the candidate is as good as the champion.

        McNemar's test, exact and one-sided (McNemar, Psychometrika 12(2), 1947).
        """
        return _p(self.better, self.worse)

    @property
    def needed(self) -> int | None:
        """How many of the images on which they differ the rule `better` needs to be better; None: they are too few."""
        together = self.better + self.worse
        critical = int(binom.isf(LEVEL, together, 0.5)) + 1
        return critical if critical <= together else None

    @property
    def lowest_gain(self) -> float:
        """The lower end of the gain with 95 % certainty: Wald's interval for paired shares.

        It has no width where models differ on hardly an image; there the rule of three holds (Hanley and Lippman-Hand,
        JAMA 249(13), 1983): of what was never seen among n, 3 / n may still be there.
        """
        together = self.better + self.worse
        variance = together - (self.better - self.worse) ** 2 / self.images
        return self.gain - max(QUANTILE * float(np.sqrt(variance)), 3) / self.images

    @property
    def smallest_gain(self) -> float | None:
        """The smallest gain that the rule `better` would have found with 80 % power, where models differ on as many.

        None: it would have found none.
        """
        share = (self.better + self.worse) / self.images
        low, high = 0.5, 1.0  # of the images on which they differ, the share that is better
        if _power(self.images, share, high) < POWER:
            return None
        while high - low > 1e-6:
            middle = (low + high) / 2
            low, high = (low, middle) if _power(self.images, share, middle) >= POWER else (middle, high)
        return share * (2 * high - 1)


def judge(
    class_names: list[str],
    candidate: Answers,
    champion: Answers | None,
    params: Retraining,
    last_better: Answers | None = None,
    compared: NDArray[np.bool_] | None = None,
) -> Verdict:
    """Judge a candidate.

    Args:
        champion: the answers of the model in service to the same images; None: there is none.
        last_better: those of the last model that was promoted as better, for the rule `not_worse`: losses that are each
            small enough would otherwise add up (Feng et al., Biometrics 77(1), 2021).
        compared: `bool [N]`, the images that no model was trained on; None: all. The floors are of all images.
    """
    reasons = _below_the_floors(class_names, candidate, params)
    figures: dict[str, Figure] = {"accuracy": candidate.accuracy}
    if champion is not None:
        if compared is not None:
            candidate, champion = candidate.of(compared), champion.of(compared)
            last_better = last_better.of(compared) if last_better else None
        difference = Difference.between(champion, candidate)
        reasons += _not_good_enough(difference, params.rule, "the champion")
        if params.rule == "not_worse" and last_better is not None:
            since = Difference.between(last_better, candidate)
            reasons += _not_good_enough(since, params.rule, "the last model that was promoted as better")
        reasons += _worse_classes(class_names, champion, candidate)
        reasons += _worse_probabilities(champion, candidate)
        figures |= {
            "gain": difference.gain,
            "p": difference.p_better,
            "better": difference.better,
            "worse": difference.worse,
            "images": difference.images,
            "rule": params.rule,
            "accuracy of the champion": champion.accuracy,
            "smallest gain that 80 % of such tests find": difference.smallest_gain,
            "lowest gain, 95 %": difference.lowest_gain,
            "calibration error": candidate.calibration_error,
            "calibration error of the champion": champion.calibration_error,
            "log loss": float(candidate.losses.mean()),
            "log loss of the champion": float(champion.losses.mean()),
        }
    else:
        figures |= {
            "images": len(candidate.labels),
            "calibration error": candidate.calibration_error,
            "log loss": float(candidate.losses.mean()),
        }
    return Verdict("quality", "failed" if reasons else "passed", reasons, figures)


def recalls(class_names: list[str], candidate: Answers, champion: Answers) -> list[Recall]:
    """Compare two models by class, on the same images; a class of which there are none is left out."""
    found = []
    for label, name in enumerate(class_names):
        own, other = candidate.recall(label), champion.recall(label)
        if own is not None and other is not None:
            found.append(Recall(name, int((candidate.labels == label).sum()), own, other))
    return found


def _below_the_floors(class_names: list[str], candidate: Answers, params: Retraining) -> list[str]:
    reasons = []
    if params.min_accuracy is not None and candidate.accuracy < params.min_accuracy:
        reasons.append(f"accuracy {candidate.accuracy:.2%} is below retraining.min_accuracy, {params.min_accuracy:.2%}")
    if params.min_recall is not None:
        for label, name in enumerate(class_names):
            recall = candidate.recall(label)
            if recall is not None and recall < params.min_recall:
                reasons.append(
                    f"recall of {name}, {recall:.2%}, is below retraining.min_recall, {params.min_recall:.2%}"
                )
    return reasons


def _not_good_enough(difference: Difference, rule: Rule, than: str) -> list[str]:
    """Say why the candidate may not follow that model by the rule, and what would have been enough."""
    counts = (
        f"of {difference.images:,} images {difference.better} are right with the candidate alone, "
        f"{difference.worse} with {than} alone"
    )
    if rule == "not_worse":
        if difference.lowest_gain > -LOSS:
            return []
        return [
            f"it may be worse than {than}: {counts}; with 95 % certainty it loses at most "
            f"{-difference.lowest_gain:.2%}, and less than {LOSS:.2%} would pass"
        ]
    if difference.p_better <= LEVEL:
        return []
    together = difference.better + difference.worse
    enough = (
        f"{difference.needed} to {together - difference.needed} would pass" if difference.needed else "too few to tell"
    )
    return [
        f"not shown to be better than {than}: {counts} (gain {difference.gain:+.2%}, p = {difference.p_better:.2g}, "
        f"{LEVEL:g} is needed: {enough})"
    ]


def _worse_classes(class_names: list[str], champion: Answers, candidate: Answers) -> list[str]:
    """Name the classes that the candidate knows worse."""
    differences = {
        label: Difference.between(champion.of(of_class), candidate.of(of_class))
        for label in range(len(class_names))
        if (of_class := champion.labels == label).any()
    }
    adjusted = dict(zip(differences, holm([_p(one.worse, one.better) for one in differences.values()]), strict=True))
    reasons = []
    for label, one in differences.items():
        lost, too_many = one.worse - one.better, max(CLASS_IMAGES, CLASS_SHARE * one.images)
        if adjusted[label] <= CLASS_LEVEL and -one.gain > CLASS_RECALL:
            reasons.append(
                f"{class_names[label]} is known worse: recall {one.gain:+.2%} of {one.images:,} images "
                f"(p = {adjusted[label]:.2g} over all classes); {-CLASS_RECALL:+.2%} would pass"
            )
        elif lost >= too_many:
            few = ceil(too_many) - 1
            reasons.append(f"{class_names[label]} loses {lost} of its {one.images:,} images; {few} would pass")
    return reasons


def holm(p_values: list[float]) -> list[float]:
    """Adjust p-values of several tests, so that the smallest of all is below a level by accident no oftener than that.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. Journal of Statistics 6(2), 1979.
    """
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        so_far = max(so_far, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = so_far
    return adjusted


def _worse_probabilities(champion: Answers, candidate: Answers) -> list[str]:
    reasons = []
    before, now = champion.calibration_error, candidate.calibration_error
    most = CALIBRATION_OF_FEW if len(champion.labels) < FEW else CALIBRATION
    if now - before > most:
        reasons.append(f"the calibration error rises from {before:.3f} to {now:.3f}, by more than {most:g}")
    differences = candidate.losses - champion.losses
    error = max(TINY, float(differences.std(ddof=1) / np.sqrt(len(differences)))) if len(differences) > 1 else np.inf
    rise, loss = float(differences.mean()), float(champion.losses.mean())
    if rise > LOG_LOSS_ERRORS * error and rise > LOG_LOSS * loss:
        reasons.append(
            f"the log loss rises from {loss:.4f} to {loss + rise:.4f}, by more than {LOG_LOSS:.0%} and "
            f"{LOG_LOSS_ERRORS:g} standard errors of {error:.2g}"
        )
    return reasons


def _p(more: int, less: int) -> float:
    return float(binomtest(more, more + less, 0.5, "greater").pvalue) if more + less else 1.0


def _power(images: int, share: float, better: float) -> float:
    """How often the rule `better` finds a model that differs on a share of the images, of which `better` are better.

    On how many images they differ is itself binomial.
    """
    spread = 6 * np.sqrt(images * share) + 6
    together = np.arange(max(0, int(images * share - spread)), min(images, int(images * share + spread)) + 1)
    critical = binom.isf(LEVEL, together, 0.5) + 1
    return float((binom.pmf(together, images, share) * binom.sf(critical - 1, together, better)).sum())
