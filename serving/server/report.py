"""What is known of the model that answers, beside its answers: where it comes from, what was said of it, a few images.

All is read when the model is opened. Of a verdict only outcomes and figures are told: its reasons and its author may
name the machine that judged.
"""

import io
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.files import open_regular
from serving.model import Predictor
from serving.probe import golden

VERDICT = "verdict.json"  # beside the model, as flows/promotion/judgement.py writes it
MAX_BYTES = 1_048_576  # of it
SAMPLES = 10  # of the golden requests, which begin with one of each class


@dataclass(frozen=True)
class Sample:
    """A test image, and the class that is expected of it."""

    label: str
    png: bytes


@dataclass(frozen=True)
class Report:
    """What the metadata of a model say, and what lies beside it."""

    dataset: str | None
    network: str | None
    test_accuracy: float | None
    temperature: float | None
    verdict: dict[str, Any] | None = None  # None: none can be read; no promotion has judged the model
    samples: tuple[Sample, ...] = ()


def of_file(predictor: Predictor) -> Report:
    """Return what the metadata of a model say; what they do not say, or not as a number, is None."""
    found = predictor.session.get_modelmeta().custom_metadata_map
    accuracy, temperature = (_number(found.get(name, "")) for name in ("test_accuracy", "temperature"))
    return Report(found.get("dataset"), found.get("network"), accuracy, temperature)


def of_champion(predictor: Predictor, folder: Path, sha256: str, requests: dict[str, Any]) -> Report:
    """Return the same, and what lies in the model's folder of the registry.

    Args:
        requests: contents of its golden.json.
    """
    verdict, samples = _verdict(folder / VERDICT, sha256), _samples(requests, predictor.class_names)
    return replace(of_file(predictor), verdict=verdict, samples=samples)


def _samples(requests: dict[str, Any], class_names: list[str]) -> tuple[Sample, ...]:
    images = golden(requests)[:SAMPLES]
    labels = [class_names[int(one["label"])] for one in requests["requests"][:SAMPLES]]
    return tuple(Sample(label, _png(image)) for label, image in zip(labels, images, strict=True))


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def _verdict(path: Path, sha256: str) -> dict[str, Any] | None:
    """Return when the model was judged, and what each gate found."""
    try:
        with open_regular(path) as file:
            contents = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    match contents:
        case {"model": str(model), "time": str(time), "blessings": [*blessings]} if model == sha256:
            return {"time": time, "gates": [gate for one in blessings for gate in _gate(one)]}
    return None


def _gate(blessing: object) -> list[dict[str, Any]]:
    match blessing:
        case {"gate": str(name), "outcome": str(outcome), "figures": dict() as figures}:
            told = {key: value for key, value in figures.items() if _is_figure(value)}
            return [{"gate": name, "outcome": outcome, "figures": told}]
    return []


def _is_figure(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
