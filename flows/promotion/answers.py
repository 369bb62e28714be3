"""What a model makes of images, as it will be served."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.model import Predictor
from serving.session import SessionError
from tasks.gates.quality import Answers
from tasks.harness.errors import StageError, listed
from tasks.prepared import Card, Split

Indices = NDArray[np.int64]
NAMED = 5  # classes in a message


def answers(predictor: Predictor, split: Split, batch_size: int, chosen: Indices | None = None) -> Answers:
    """Have a model answer images of a split, a batch at a time: those that are chosen, `int64 [n]`, or all.

    Raises:
        SessionError: it fails on them.
    """
    chosen = np.arange(len(split.labels)) if chosen is None else chosen
    batches = np.array_split(chosen, max(1, -(-len(chosen) // batch_size)))
    probabilities = [predictor(np.ascontiguousarray(split.images[indices])) for indices in batches]
    return Answers(np.concatenate(probabilities), split.labels[chosen])


def difference(predictor: Predictor, card: Card) -> str | None:
    """Say which other images than those of the data a model is for; None: it is for them."""
    if predictor.class_names != card.class_names:
        its, those = (listed(names, NAMED) for names in (predictor.class_names, card.class_names))
        return f"its classes are {its}, those of the data {those}"
    if list(predictor.image_shape) != card.image_shape:
        its, those = (" x ".join(map(str, shape)) for shape in (predictor.image_shape, card.image_shape))
        return f"it takes images of {its}, those of the data are {those}"
    return None


def opened(model: bytes, provider: str, name: str) -> Predictor:
    """Open a model that has been read already, so that what is judged is what goes into service.

    Args:
        name: what an error calls it.

    Raises:
        StageError: it cannot be opened.
    """
    try:
        return Predictor(Path(name), provider, content=model)
    except SessionError as error:
        raise StageError(str(error)) from None
