"""The learning curve, as the training goes."""

from pathlib import Path

from tasks.harness.replacing import replacing
from tasks.training.record import Validated

CURVE = Path("reports/learning_curve.csv")


class LearningCurve:
    """reports/learning_curve.csv, a row an epoch; written as the run goes, so that `dvc plots show` can follow it.

    A new file takes the old one's place each time, which may be a link to DVC's cache, where nothing may change.

    Args:
        writes: whether this process is the one that does.
    """

    def __init__(self, writes: bool = True) -> None:
        self.writes = writes
        self.write("epoch,train_loss,validation_loss,validation_accuracy,learning_rate\n")

    def add(self, validated: Validated, train_loss: float, learning_rate: float) -> None:
        """Add an epoch; the learning rate is that of its last step."""
        figures = (train_loss, validated.loss, validated.accuracy)
        self.write(
            f"{self.text}{validated.epoch},{','.join(f'{figure:.6f}' for figure in figures)},{learning_rate:.6g}\n"
        )

    def write(self, text: str) -> None:
        self.text = text
        if not self.writes:
            return
        CURVE.parent.mkdir(exist_ok=True)
        with replacing(CURVE) as partial:
            partial.write_text(text)
