"""Each classic dataset by its recipe, stage by stage: from its publisher's files to a model that takes its images."""

import json
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows import overrides, recipes
from serving import predict
from serving.session import open_session
from tasks.data import datasets
from tests.support.made import made, with_archives
from tests.support.params import ROOT, shipped_params

# With made images and labels there is nothing to learn, and at the shipped rate the logits grow beyond all bounds.
SHORT = ("train.learning_rate=0.001", "train.epochs=2", "train.threads=1")


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist", "kmnist", "cifar10", "cifar100"])
def test_it_is_trained_on_and_the_model_takes_its_images(
    name: str, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "recipes", "recipes")
    Path("params.yaml").write_text(overrides.apply(shipped_params(), [*recipes.changes(name), *SHORT])[0])
    files = made(name, images=40)
    row = replace(with_archives(datasets.DATASETS[name], files), instead=None)
    monkeypatch.setitem(datasets.DATASETS, name, row)
    mirror = workspace / "mirror" / name
    mirror.mkdir(parents=True)
    for file, content in files.items():
        (mirror / file).write_bytes(content)
    monkeypatch.setenv("DATA_MIRROR", str(workspace / "mirror"))

    for stage in ("download", "transform", "train", "evaluate", "export"):
        import_module(f"tasks.{stage}").main()

    images = np.load("data/prepared/test_images.npy")
    assert len(images) == 40
    (logits,) = open_session(Path("models/model.onnx")).run(["logits"], {"images": images})
    class_names = json.loads(Path("data/prepared/dataset.json").read_text())["class_names"]
    assert logits.shape == (40, len(class_names))
    Image.fromarray(images[0].squeeze()).save("image.png")
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["predict", "image.png"])
    predict.main()
    assert capsys.readouterr().out.startswith(f"image.png: {class_names[logits[0].argmax()]} ")
