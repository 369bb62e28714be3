"""The learning curve, as the training goes."""

from pathlib import Path

CURVE = Path("reports/learning_curve.csv")


class LearningCurve:
    """reports/learning_curve.csv, a row an epoch; written as the run goes, so that `dvc plots show` can follow it.

    A new file takes the old one's place each time, which may be a link to DVC's cache, where nothing may change.
    """

    def __init__(self) -> None:
        CURVE.parent.mkdir(exist_ok=True)
        self.write("epoch,train_loss,validation_loss,validation_accuracy\n")

    def add(self, epoch: int, train_loss: float, validation_loss: float, validation_accuracy: float) -> None:
        self.write(f"{self.text}{epoch},{train_loss:.6f},{validation_loss:.6f},{validation_accuracy:.6f}\n")

    def write(self, text: str) -> None:
        self.text = text
        partial = CURVE.with_name(f".partial-{CURVE.name}")
        partial.write_text(text)
        partial.replace(CURVE)
