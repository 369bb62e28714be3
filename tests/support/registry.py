"""A registry as those who serve see it: models under their SHA-256, golden requests, and the pointer to one of them."""

import base64
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx

from serving.champion import Champion
from serving.model import Predictor

MODEL = "model.onnx"


def keep(root: Path, proto: onnx.ModelProto, labels: list[int] | None = None) -> Champion:
    """Put a model into its folder and return what would name it as the first champion.

    Args:
        labels: that it is said to give to a dark and a light image; None: those that it gives.
    """
    content = proto.SerializeToString()
    digest = sha256(content).hexdigest()
    folder = root / digest
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_bytes(content)
    predictor = Predictor(folder / MODEL)
    images = np.stack([np.full(predictor.image_shape, value, np.uint8) for value in (0, 255)])
    found = predictor(images).argmax(1).tolist() if labels is None else labels
    requests = [
        {"label": label, "pixels": base64.b64encode(image.tobytes()).decode()}
        for label, image in zip(found, images, strict=True)
    ]
    golden = {"image_shape": list(predictor.image_shape), "requests": requests}
    (folder / "golden.json").write_text(json.dumps(golden))
    return Champion(f"{digest}/{MODEL}", digest, len(content), 1)


def point(root: Path, champion: Champion, number: int) -> Champion:
    """Make a model the champion, as entry `number` of the history."""
    pointed = Champion(champion.path, champion.sha256, champion.size, number)
    partial = root / "champion.json.partial"
    partial.write_text(json.dumps({"schema_version": 1, **vars(pointed)}))
    partial.rename(root / "champion.json")
    return pointed
