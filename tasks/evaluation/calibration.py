"""How far the confidence of a model is to be believed. Needs no torch, so that gates which serve a model share it."""

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.record import BINS, Bin


def calibration(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> list[Bin]:
    """Compare how sure the model is with how often it is right: a row for each bin of confidence that has images.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017: bins of equal width, closed on the right.

    Args:
        confidence: of each of N images, `float32 [N]`: the probability of the predicted class.
        right: whether that is its class, `bool [N]`.
    """
    edges = np.linspace(0, 1, BINS + 1)
    chosen = np.digitize(confidence, edges[1:-1], right=True)
    return [
        Bin(
            confidence=float(confidence[chosen == number].mean(dtype=np.float64)),
            accuracy=float(right[chosen == number].mean()),
            images=int((chosen == number).sum()),
        )
        for number in np.unique(chosen)
    ]


def calibration_error(bins: list[Bin]) -> float:
    """Compute the expected calibration error: how far the bins of `calibration` are off, on average over the images."""
    images = sum(row.images for row in bins)
    return sum(row.images / images * abs(row.accuracy - row.confidence) for row in bins)
