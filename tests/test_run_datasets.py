"""Each dataset from its files to a model: classic ones, made in their publishers' formats, and images of one's own."""

import hashlib
import json
import re
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


def draw(folder: Path, number: int) -> str:
    """Write a noisy photograph, reddish if `number` is even and bluish if it is odd, and return its class."""
    generator = np.random.default_rng(number)
    pixels = generator.integers(0, 200, (40 + number % 30, 50, 3), np.uint8)
    pixels[..., 2 * (number % 2)] += 55
    name = "blue" if number % 2 else "red"
    (folder / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name / f"{number}.jpg", exif=Image.Exif())
    return name


def train_on(project: Path, command: Command, name: str) -> list[str]:
    printed = command("python", "-m", "flows.run", name, cwd=project).stdout
    return re.findall(r" - (\w+: (?:ran|restored|up to date)), ", printed)


def test_ones_own_images_in_folders_and_what_runs_again_when_one_is_added(project: Path, command: Command) -> None:
    inbox = project / "data/inbox"
    for number in range(120):
        draw(inbox, number)
    stages = ("download", "transform", "train", "evaluate", "export")
    assert train_on(project, command, "folder") == [f"{stage}: ran" for stage in stages]
    assert json.loads((project / "reports/metrics.json").read_text())["accuracy"] > 0.9
    draw(project, 1001)
    printed = command("python", "-m", "serving.predict", "blue/1001.jpg", cwd=project).stdout
    assert printed.startswith("blue/1001.jpg: blue ")

    assert train_on(project, command, "folder") == [f"{stage}: up to date" for stage in stages]
    draw(inbox, 120)
    assert train_on(project, command, "folder") == [f"{stage}: ran" for stage in stages]
    (inbox / "red/120.jpg").unlink()
    assert train_on(project, command, "folder") == [f"{stage}: restored" for stage in stages]


def test_ones_own_images_with_a_csv_file(project: Path, command: Command) -> None:
    inbox = project / "data/inbox"
    rows = [f"{label}/{n}.jpg, {label}" for n in range(120) for label in [draw(inbox, n)]]
    (inbox / "labels.csv").write_text("image, label\n" + "\n".join(rows))
    assert train_on(project, command, "csv")[0] == "download: ran"
    assert json.loads((project / "reports/metrics.json").read_text())["accuracy"] > 0.9
