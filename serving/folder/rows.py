"""From image files to the rows of a table: what each of them shows, or why it cannot be classified."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.images import ImageError
from serving.model import Predictor

TOP = 3  # classes that are named


class Row(NamedTuple):
    """One image: the most probable classes, None where a model has fewer than three, or `error` alone."""

    path: str  # below the folder
    label: str | None = None
    probability: float | None = None
    label_2: str | None = None
    probability_2: float | None = None
    label_3: str | None = None
    probability_3: float | None = None
    error: str | None = None


def classify(predictor: Predictor, folder: Path, paths: list[str]) -> list[Row]:
    """Classify the image files at `paths` below a folder, in one batch.

    Raises:
        SessionError: the model does not run.
        OSError: no more files can be opened.
    """
    images: list[NDArray[np.uint8]] = []
    errors: dict[str, str] = {}
    for path in paths:
        file = folder / path
        try:
            images.append(predictor.image(file))
        except ImageError as error:
            errors[path] = utf8(str(error).removeprefix(f"{file}: "))
    answers = iter(best(predictor, images))
    return [Row(path, error=errors[path]) if path in errors else Row._make((path, *next(answers))) for path in paths]


def best(predictor: Predictor, images: list[NDArray[np.uint8]]) -> list[list[str | float | None]]:
    """Return what rows hold of images besides their paths: the most probable classes and no error."""
    if not images:
        return []
    probabilities = predictor(np.stack(images))
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
    names = [utf8(name) for name in predictor.class_names]
    return [
        [*(cell for k in classes for cell in (names[k], float(row[k]))), *[None] * (2 * (TOP - len(classes)) + 1)]
        for row, classes in zip(probabilities, order, strict=True)
    ]


def utf8(text: str) -> str:
    """Escape half characters, which JSON and Python have and no table can hold, as `\\ud800`."""
    return text.encode("utf-8", "backslashreplace").decode()
