"""A model that may answer: opened, tried on what it has to know, and warm."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from serving import champion
from serving.champion import Champion
from serving.model import Predictor
from serving.probe import GOLDEN, answered, golden
from serving.server import report
from serving.server.report import Report
from serving.session import SessionError, read_model

FILE_VERSION = "1"  # of a model that no promotion has given a number
THREADS = 1  # beside the event loop; two cost half of the images per CPU-second


@dataclass(frozen=True, eq=False)
class Served:
    """A model, and what it is called."""

    predictor: Predictor
    version: str  # the number of the entry that put it into service
    sha256: str
    report: Report

    def __str__(self) -> str:
        return f"version {self.version} ({self.sha256[:7]})"

    def about(self) -> dict[str, str]:
        """Return what answers and metrics say of it."""
        return {"model_version": self.version, "sha256": self.sha256}


class Refused(Exception):
    """A new model may not answer. The message is for anyone; what the machine says of it is the cause's."""


def open_file(path: Path, provider: str, largest: int) -> Served:
    """Open a model that no promotion has judged.

    Args:
        largest: batch that it will be given.

    Raises:
        SessionError: see `Predictor`.
    """
    content = read_model(path)
    predictor = Predictor(path, provider, threads=THREADS, content=content)
    _warm(predictor, largest)
    return Served(predictor, FILE_VERSION, sha256(content).hexdigest(), report.of_file(predictor))


def open_champion(root: Path, found: Champion, provider: str, largest: int) -> Served:
    """Open the model in service, and have it answer its golden requests.

    Args:
        largest: batch that it will be given.

    Raises:
        Refused: it is not what was promoted.
    """
    name = f"entry {found.number} of the history ({found.sha256[:7]})"
    try:
        content = champion.content(root, found)
    except SessionError as error:
        raise Refused(f"{name}: its file is missing, or not the one that was promoted") from error
    try:
        predictor = Predictor(root / found.path, provider, threads=THREADS, content=content)
        _warm(predictor, largest)
    except SessionError as error:
        raise Refused(f"{name}: it does not run here") from error
    folder = (root / found.path).parent
    try:
        requests = json.loads((folder / GOLDEN).read_text(encoding="utf-8"))
        wrong, of = _golden(requests, predictor)
    except (OSError, ValueError, KeyError, TypeError, SessionError) as error:
        raise Refused(f"{name}: its golden requests cannot be read") from error
    if wrong:
        raise Refused(f"{name}: {wrong} of {of} golden requests get another answer than when it was promoted")
    told = report.of_champion(predictor, folder, found.sha256, requests)
    return Served(predictor, str(found.number), found.sha256, told)


def _golden(contents: dict[str, Any], predictor: Predictor) -> tuple[int, int]:
    """Return how many golden requests get another answer, and how many there are."""
    expected = [int(one["label"]) for one in contents["requests"]]
    alone, together = answered(predictor, golden(contents))
    wrong = sum(len({a, b, c}) > 1 for a, b, c in zip(alone, together, expected, strict=True))
    return wrong, len(expected)


def _warm(predictor: Predictor, largest: int) -> None:
    for size in (1, largest, 1):
        predictor(np.zeros((size, *predictor.image_shape), np.uint8))
