"""What a model makes of images, as it will be served."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from serving.model import Predictor
from serving.session import SessionError
from tasks.gates.quality import Answers
from tasks.harness.errors import StageError
from tasks.prepared import Split


def answers(predictor: Predictor, test: Split, batch_size: int) -> Answers:
    """Have a model answer images.

    Raises:
        SessionError: it fails on them.
    """
    batches = np.array_split(np.arange(len(test.labels)), max(1, -(-len(test.labels) // batch_size)))
    probabilities = [predictor(np.ascontiguousarray(test.images[indices])) for indices in batches]
    return Answers(np.concatenate(probabilities), test.labels)


def opened(model: bytes, provider: str, name: str) -> Predictor:
    """Open a model that has been read already, so that what is judged is what goes into service.

    Args:
        name: what an error calls it.

    Raises:
        StageError: it cannot be opened.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(model)
        try:
            return Predictor(path, provider)
        except SessionError as error:
            raise StageError(str(error).replace(str(path), name)) from None
