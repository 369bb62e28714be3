"""The one number that makes probabilities mean what they say: the temperature by which logits are divided.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017. It divides all logits, so that no prediction
changes.
"""

import math

from torch import Tensor

from tasks.evaluation.record import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, Temperature

HALVINGS = 24  # of the interval, in log: far below the last digit kept
DECIMALS = 4  # which two machines agree on, so that they export the same model


def fit(logits: Tensor, labels: Tensor) -> Temperature:
    """Find the temperature with the lowest loss on logits `float32 [N, classes]` with the labels `int64 [N]`.

    The loss is convex in 1 / temperature: its slope changes sign once at most, and halving finds where. Where it does
    not within the bounds, the images do not say how sure the model may be, as where all of them are predicted right:
    the temperature stays 1.
    """
    centred = logits.double()
    centred = centred - centred.amax(1, keepdim=True)  # as softmax does: no exponential overflows
    actual = centred.gather(1, labels.unsqueeze(1)).mean()

    def slope(temperature: float) -> float:
        """Compute the derivative of the loss by 1 / temperature."""
        return float(((centred / temperature).softmax(1) * centred).sum(1).mean() - actual)

    low, high = math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)
    if not slope(LOWEST_TEMPERATURE) > 0 > slope(HIGHEST_TEMPERATURE):
        remark = (
            f"the loss on {len(labels):,} validation images is lowest at no temperature between {LOWEST_TEMPERATURE:g} "
            f"and {HIGHEST_TEMPERATURE:g}, as where all are predicted right or the logits say nothing"
        )
        return Temperature(1.0, len(labels), remark)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(math.exp(middle)) < 0 else (middle, high)
    value = round(math.exp((low + high) / 2), DECIMALS)
    return Temperature(min(max(value, LOWEST_TEMPERATURE), HIGHEST_TEMPERATURE), len(labels), None)
