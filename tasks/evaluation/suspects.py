"""The images whose label the model doubts most: where a person should look for wrong labels."""

from dataclasses import dataclass

import numpy as np

from tasks.evaluation.scores import Scores
from tasks.prepared import ImageId, SplitName, names

MAX_SUSPECTS = 1000


@dataclass(frozen=True)
class Suspect:
    """An image that may be labelled wrongly."""

    image: str  # its path, or its split and index
    split: SplitName
    index: int
    label: str
    predicted: str
    confidence: float
    loss: float


def suspects(scored: dict[SplitName, Scores], class_names: list[str]) -> list[Suspect]:
    """List the images of all splits that the model takes for something else, those with the highest loss first.

    Where a network has learnt from labels most of which are right, it learns the wrong ones last: Northcutt et al.,
    Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70, 2021, compare such rankings.
    """
    doubted: list[tuple[float, ImageId]] = []
    for split, found in scored.items():
        wrong = np.flatnonzero(found.predicted != found.labels)
        worst = wrong[np.argsort(-found.loss[wrong], kind="stable")][:MAX_SUSPECTS]
        doubted += [(float(found.loss[index]), (split, int(index))) for index in worst]
    doubted = sorted(doubted, key=lambda pair: -pair[0])[:MAX_SUSPECTS]
    named = names({image for _, image in doubted})
    return [
        Suspect(
            image=named[split, index],
            split=split,
            index=index,
            label=class_names[scored[split].labels[index]],
            predicted=class_names[scored[split].predicted[index]],
            confidence=float(scored[split].confidence[index]),
            loss=loss,
        )
        for loss, (split, index) in doubted
    ]
