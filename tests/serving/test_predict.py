"""serving.predict: from image file to label, with the ONNX model alone."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from serving import predict
from serving.images import decode
from serving.model import Predictor
from serving.session import SessionError
from tasks import export, train
from tasks.model.batches import predict as torch_predict
from tasks.model.classifier import load
from tasks.prepared import Images, Split
from tests.support.params import ROOT, write_params


def save(image: Images) -> Path:
    Image.fromarray(image.squeeze()).save("image.png")
    return Path("image.png")


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path) -> None:
    pass


@pytest.mark.parametrize("normalize", ["none", "half", "fitted"])
def test_from_file_to_label_it_predicts_what_the_pth_model_predicts(
    exported: Path, normalize: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if normalize != "none":  # which is what the model in the workspace does
        write_params(train={"normalize": normalize})
        train.main()
        export.main()
    model, description = load()
    probabilities = torch_predict(model, Split.read("test"), 8, torch.device("cpu")).softmax(1).numpy()
    predictor = Predictor(Path("models/model.onnx"))
    assert predictor.class_names == description.class_names
    for index, image in enumerate(Split.read("test").images):
        found = predictor(decode(save(image), predictor.image_shape)[np.newaxis])[0]
        np.testing.assert_allclose(found, probabilities[index], atol=1e-5)
    capsys.readouterr()

    monkeypatch.setattr(sys, "argv", ["predict", str(save(Split.read("test").images[0])), "missing.png"])
    assert predict.main() == 1
    printed = capsys.readouterr()
    best = np.argsort(-probabilities[0])[:3]
    first = f"image.png: {description.class_names[best[0]]} {probabilities[0][best[0]]:.1%}  (then "
    assert printed.out.startswith(first)
    assert printed.out.count("%") == 3
    assert printed.err == "predict: missing.png: no such file\n"


def test_a_model_that_cannot_be_used_is_refused_with_the_reason() -> None:
    image = save(np.zeros((28, 28, 1), np.uint8))
    with pytest.raises(SessionError, match=r"model.onnx does not exist: make run trains it"):
        Predictor(Path("model.onnx"))
    with pytest.raises(SessionError, match="CPUExecutionProvider cannot run the model"):
        Predictor(image)
    with pytest.raises(SessionError, match="CUDAExecutionProvider is not in this ONNX Runtime"):
        Predictor(image, "CUDAExecutionProvider")


def test_serving_imports_no_torch() -> None:
    code = "import sys, serving.predict; sys.exit(str({'torch', 'prefect', 'dvc', 'pydantic'} & set(sys.modules)))"
    answer = subprocess.run((sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert answer.stderr.strip() == "set()"
