"""The classic datasets, each from its publisher's archives to a model, on made images in the publisher's format."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.session import open_session
from tasks.datasets import DATASETS
from tests.conftest import Command, copy_project, edit, made


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, and in `mirror/` archives of 40 images, which take the place of the real ones."""
    folder = copy_project(tmp_path_factory.mktemp("datasets"))
    for name in ("mnist", "kmnist", "cifar10", "cifar100"):
        (folder / "mirror" / name).mkdir(parents=True)
        for archive in DATASETS[name].archives:
            data = made(name, images=40)[archive.name]
            (folder / "mirror" / name / archive.name).write_bytes(data)
            found = f"{len(data)}, {json.dumps(hashlib.md5(data).hexdigest())}"
            edit(folder / "tasks/datasets.py", f"{archive.size}, {json.dumps(archive.md5)}", found)
    return folder


@pytest.mark.parametrize("name", ["mnist", "kmnist", "cifar10", "cifar100"])
def test_make_run_trains_on_it_and_the_model_takes_its_images(name: str, project: Path, command: Command) -> None:
    printed = command("python", "-m", "flows.run", name, cwd=project, DATA_MIRROR="mirror").stdout
    assert printed.count(": ran, ") == 5
    images = np.load(project / "data/prepared/test_images.npy")
    assert len(images) == 40
    session = open_session(project / "models/model.onnx")
    (logits,) = session.run(["logits"], {"images": images})
    card = json.loads((project / "data/prepared/dataset.json").read_text())
    assert logits.shape == (40, len(card["class_names"]))
    Image.fromarray(images[0].squeeze()).save(project / "image.png")
    printed = command("python", "-m", "serving.predict", "image.png", cwd=project).stdout
    assert printed.startswith(f"image.png: {card['class_names'][logits[0].argmax()]} ")
