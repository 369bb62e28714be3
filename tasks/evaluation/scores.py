"""What a model makes of each image, the class it predicts, how sure it is of it and the loss, and of all of them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tasks.evaluation.calibration import calibration, calibration_error
from tasks.evaluation.record import ClassScores, Evaluation, Reliability, Temperature
from tasks.model.batches import logits_of
from tasks.prepared import Labels, Split

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """Of each of N images."""

    labels: Labels  # int64 [N]
    predicted: Labels  # int64 [N]
    confidence: Floats  # float32 [N], the probability of the predicted class
    loss: Floats  # float32 [N], cross-entropy


def score(classifier: nn.Module, split: Split, batch_size: int, device: torch.device) -> Scores:
    """Score a split batch by batch, so that its logits need not be held."""
    parts = [of(logits, labels) for logits, labels in logits_of(classifier, split, batch_size, device)]
    return Scores(
        labels=np.concatenate([part.labels for part in parts]),
        predicted=np.concatenate([part.predicted for part in parts]),
        confidence=np.concatenate([part.confidence for part in parts]),
        loss=np.concatenate([part.loss for part in parts]),
    )


def of(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Scores:
    """Score logits `float32 [N, classes]`, divided by a temperature, of images with the labels `int64 [N]`."""
    logits = logits / temperature
    confidence, predicted = logits.softmax(1).max(1)
    loss = cross_entropy(logits, labels, reduction="none")
    return Scores(labels.numpy(), predicted.numpy(), confidence.numpy(), loss.numpy())


def reliability(scores: Scores) -> Reliability:
    bins = calibration(scores.confidence, scores.predicted == scores.labels)
    return Reliability(float(scores.loss.mean(dtype=np.float64)), calibration_error(bins), bins)


def measure(test: Scores, class_names: list[str], temperature: Temperature, calibrated: Scores) -> Evaluation:
    """Compute the contents of evaluation.json.

    Args:
        calibrated: of the same test images, at the temperature.
    """
    classes = range(len(class_names))
    per_class = precision_recall_fscore_support(test.labels, test.predicted, labels=classes, zero_division=0)
    return Evaluation(
        accuracy=float(accuracy_score(test.labels, test.predicted)),
        samples=len(test.labels),
        per_class={
            name: ClassScores(float(precision), float(recall), float(f1), int(support))
            for name, precision, recall, f1, support in zip(class_names, *per_class, strict=True)
        },
        confusion_matrix=confusion_matrix(test.labels, test.predicted, labels=classes).tolist(),
        **vars(reliability(test)),
        temperature=temperature,
        calibrated=reliability(calibrated),
    )
