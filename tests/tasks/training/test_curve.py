"""The learning curve, as the training goes."""

from pathlib import Path

from tasks.training.curve import CURVE, LearningCurve


def test_the_learning_curve_has_a_row_an_epoch_as_the_run_goes(workspace: Path) -> None:
    curve = LearningCurve()
    assert CURVE.read_text() == "epoch,train_loss,validation_loss,validation_accuracy\n"
    curve.add(1, 2.25, 2.125, 0.5)
    assert CURVE.read_text().splitlines() == [
        "epoch,train_loss,validation_loss,validation_accuracy",
        "1,2.250000,2.125000,0.500000",
    ]
