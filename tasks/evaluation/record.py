"""The contract reports/evaluation.json: what a network came to on the test images. Reading it needs no torch."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from tasks.harness.errors import StageError
from tasks.harness.records import read_record

EVALUATION = "reports/evaluation.json"
BINS = 15  # of confidence, as in Guo et al.
# Beyond them a temperature says more of the few images that it was fitted on than of the model.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 10.0

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=2**63)]  # as NumPy counts


@dataclass(frozen=True)
class ClassScores:
    """Of one class; precision, recall and F1 of one that is never predicted, or has no image, are 0."""

    precision: Share
    recall: Share
    f1: Share
    support: Count  # its images


@dataclass(frozen=True)
class Bin:
    """Images of which the model is about equally sure: how sure, and how often it is right."""

    confidence: Share
    accuracy: Share
    images: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Reliability:
    """How far the probabilities of a model are to be believed."""

    loss: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    calibration_error: Share
    calibration: Annotated[list[Bin], Field(min_length=1)]


@dataclass(frozen=True)
class Temperature:
    """By what the logits are to be divided, so that the probabilities mean what they say."""

    value: Annotated[float, Field(ge=LOWEST_TEMPERATURE, le=HIGHEST_TEMPERATURE)]
    images: Annotated[int, Field(ge=1)]  # of the validation split, on which it was fitted
    remark: str | None  # why it is 1, where no other could be fitted


def _some_with_images(per_class: dict[str, ClassScores]) -> dict[str, ClassScores]:
    if not any(scores.support for scores in per_class.values()):
        raise ValueError("should have at least one class with test images")
    return per_class


@dataclass(frozen=True)
class Evaluation:
    """The contents of evaluation.json: of the network as it is, and its reliability with the temperature."""

    accuracy: Share
    loss: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    calibration_error: Share
    samples: Annotated[int, Field(ge=1)]
    per_class: Annotated[dict[str, ClassScores], AfterValidator(_some_with_images)]
    confusion_matrix: list[list[Count]]  # row: actual class, column: predicted class, both in the order of per_class
    calibration: Annotated[list[Bin], Field(min_length=1)]
    temperature: Temperature
    calibrated: Reliability

    def served(self, calibrated: bool) -> "Evaluation":
        """Return what the exported model comes to; one that divides by the temperature keeps its predictions."""
        return replace(self, **vars(self.calibrated)) if calibrated else self

    @classmethod
    def read(cls, folder: Path = Path()) -> "Evaluation":
        """Read it in the project at `folder`.

        Raises:
            StageError: see `read_record`; or the confusion matrix is not of these classes.
        """
        path = folder / EVALUATION
        evaluation = read_record(path, cls)
        classes = len(evaluation.per_class)
        if [len(row) for row in evaluation.confusion_matrix] != [classes] * classes:
            raise StageError(
                f"{path} is refused: confusion_matrix should have a row and a column for each of the {classes} classes "
                "in per_class; run dvc repro"
            )
        return evaluation
