"""The learning curve, as the training goes."""

from pathlib import Path

from tasks.training.curve import CURVE, LearningCurve
from tasks.training.record import Validated


def test_the_learning_curve_has_a_row_an_epoch_as_the_run_goes(workspace: Path) -> None:
    curve = LearningCurve()
    assert CURVE.read_text() == "epoch,train_loss,validation_loss,validation_accuracy,learning_rate\n"
    curve.add(Validated(1, 0.5, 2.125, [[1]]), 2.25, 0.03)
    assert CURVE.read_text().splitlines() == [
        "epoch,train_loss,validation_loss,validation_accuracy,learning_rate",
        "1,2.250000,2.125000,0.500000,0.03",
    ]


def test_one_of_several_processes_alone_writes_it(workspace: Path) -> None:
    LearningCurve(writes=False).add(Validated(1, 0.5, 2.125, [[1]]), 2.25, 0.03)
    assert not CURVE.exists()
