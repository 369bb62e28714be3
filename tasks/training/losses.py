"""The losses of batches, kept on the device until somebody looks at them: to look waits for it."""

import math

import torch
from torch import Tensor

from tasks.harness.errors import StageError
from tasks.training.ranks import Ranks


class Losses:
    """Those that nobody has looked at yet.

    Args:
        learning_rate: `train.learning_rate`.
    """

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.unseen: list[tuple[Tensor, int, int, float]] = []

    def add(self, loss: Tensor, epoch: int, batch: int, rate: float) -> None:
        """Add the loss of a batch; see `finite`."""
        self.unseen.append((loss, epoch, batch, rate))

    def look(self, ranks: Ranks) -> None:
        """Look, with all processes, at those since the last look.

        Raises:
            StageError: see `finite`, of the first that is none.
        """
        self.examine(ranks)
        self.unseen.clear()

    def examine(self, ranks: Ranks) -> None:
        """Do as `look`, and leave them for the next one, with the other processes."""
        if not self.unseen:
            return
        losses = ranks.summed(torch.stack([loss for loss, *_ in self.unseen]))
        for loss, (_, epoch, batch, rate) in zip(losses.tolist(), self.unseen, strict=True):
            self.finite(loss, epoch, batch, rate)

    def finite(self, loss: float, epoch: int, batch: int, rate: float) -> None:
        """See that a loss is a number with which the training can go on.

        Args:
            batch: of the epoch, the first being 1.
            rate: the learning rate of its step.

        Raises:
            StageError: it is none.
        """
        if not math.isfinite(loss):
            raise StageError(
                f"the loss is {loss} after batch {batch} of epoch {epoch}, with the learning rate {rate:.3g}: try a "
                f"lower train.learning_rate = {self.learning_rate}, a warm-up (train.warm_up), or train.clip_norm: 1"
            )
