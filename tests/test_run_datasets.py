"""Each dataset from its files to a model: classic ones, made in their publishers' formats, and images of one's own."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows import overrides
from flows.run import changes
from serving.session import open_session
from tasks.datasets import DATASETS
from tests.conftest import Command, copy_project, edit, made

CLASSIC = ("fashion_mnist", "mnist", "kmnist", "cifar10", "cifar100")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, and in `mirror/` archives of 40 images, which take the place of the real ones."""
    folder = copy_project(tmp_path_factory.mktemp("datasets"))
    for name in CLASSIC:
        (folder / "mirror" / name).mkdir(parents=True)
        for archive in DATASETS[name].archives:
            data = made(name, images=40)[archive.name]
            (folder / "mirror" / name / archive.name).write_bytes(data)
            found = f"{len(data)}, {json.dumps(hashlib.md5(data).hexdigest())}"
            edit(folder / "tasks/datasets.py", f"{archive.size}, {json.dumps(archive.md5)}", found)
    return folder


def repro(project: Path, command: Command) -> list[str]:
    """Run `dvc repro` and return what DVC said of each stage: Running, didn't or is (cached)."""
    printed = command("dvc", "repro", cwd=project, DATA_MIRROR="mirror").stdout
    return re.findall(r"^(Running|Stage '\w+' \w+)", printed, re.MULTILINE)


def choose(project: Path, name: str) -> None:
    """Make the changes of `make run DATASET=name`."""
    path = project / "params.yaml"
    path.write_text(overrides.apply(path.read_text(), changes(name))[0])


@pytest.mark.parametrize("name", CLASSIC)
def test_it_is_trained_on_and_the_model_takes_its_images(name: str, project: Path, command: Command) -> None:
    choose(project, name)
    assert repro(project, command) == ["Running"] * 5
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


def test_ones_own_images_in_folders_and_what_runs_again_when_one_is_added(project: Path, command: Command) -> None:
    inbox = project / "data/inbox"
    for number in range(120):
        draw(inbox, number)
    printed = command("python", "-m", "flows.run", "folder", cwd=project).stdout
    assert printed.count(": ran, ") == 5
    assert json.loads((project / "reports/metrics.json").read_text())["accuracy"] > 0.9
    draw(project, 1001)
    printed = command("python", "-m", "serving.predict", "blue/1001.jpg", cwd=project).stdout
    assert printed.startswith("blue/1001.jpg: blue ")

    stages = ("download", "transform", "train", "evaluate", "export")
    assert repro(project, command) == [f"Stage '{stage}' didn" for stage in stages]
    (inbox / "notes.txt").write_text("no image: nothing but the stock is taken again")
    assert repro(project, command) == ["Running", *(f"Stage '{stage}' didn" for stage in stages[1:])]
    (inbox / "notes.txt").unlink()
    repro(project, command)
    draw(inbox, 120)
    assert repro(project, command) == ["Running"] * 5
    (inbox / "red/120.jpg").unlink()
    assert repro(project, command) == [f"Stage '{stage}' is" for stage in stages]
    (inbox / "red/118.jpg").write_bytes((inbox / "red/118.jpg").read_bytes() + b" another file, the same pixels")
    assert repro(project, command)[:2] == ["Running", "Running"]
    page = command("python", "-m", "flows.page", cwd=project).stdout
    assert page.startswith("Verified")
    assert "<figcaption>red " in (project / "reports/report.html").read_text()


def test_ones_own_images_with_a_csv_file(project: Path, command: Command) -> None:
    inbox = project / "data/inbox"
    rows = [f"{label}/{n}.jpg, {label}" for n in range(120) for label in [draw(inbox, n)]]
    (inbox / "labels.csv").write_text("image, label\n" + "\n".join(rows))
    choose(project, "csv")
    assert repro(project, command)[0] == "Running"
    assert json.loads((project / "reports/metrics.json").read_text())["accuracy"] > 0.9
