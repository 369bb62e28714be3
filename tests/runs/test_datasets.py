"""Each dataset from its files to a model: classic ones, made in their publishers' formats, and images of one's own."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows import recipes
from serving.session import open_session
from tasks.data import fetch
from tasks.data.datasets import DATASETS
from tasks.prepared import SPLITS, Split
from tests.support.made import made
from tests.support.project import Command, change, copy_project

CLASSIC = ("fashion_mnist", "mnist", "kmnist", "cifar10", "cifar100")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("datasets"))


def put_raw(project: Path, name: str, command: Command) -> None:
    """Put 40 images in the publisher's format where download leaves them, and let DVC take them for its output.

    Their archives have other checksums than those in the table, so download itself would refuse them.
    """
    shutil.rmtree(project / "data/raw", ignore_errors=True)
    archives = []
    for file, content in made(name, images=40).items():
        archives.append(project / file)
        archives[-1].write_bytes(content)
    fetch.unpack(archives, project / "data/raw" / DATASETS[name].folder)
    for archive in archives:
        archive.unlink()
    command("dvc", "commit", "--force", "download", cwd=project)


def repro(project: Path, command: Command) -> list[str]:
    """Run `dvc repro` and return what DVC said of each stage: Running, didn't or is (cached)."""
    printed = command("dvc", "repro", cwd=project).stdout
    return re.findall(r"^(Running|Stage '\w+' \w+)", printed, re.MULTILINE)


@pytest.mark.parametrize("name", CLASSIC)
def test_it_is_trained_on_and_the_model_takes_its_images(name: str, project: Path, command: Command) -> None:
    # With made images and labels there is nothing to learn, and at the shipped rate the logits grow beyond all bounds.
    change(project, *recipes.changes(name), "train.learning_rate=0.001", "train.epochs=2")
    put_raw(project, name, command)
    assert repro(project, command) == ["Stage 'download' didn", *["Running"] * 4]
    images = np.load(project / "data/prepared/test_images.npy")
    assert len(images) == 40
    session = open_session(project / "models/model.onnx")
    (logits,) = session.run(["logits"], {"images": images})
    card = json.loads((project / "data/prepared/dataset.json").read_text())
    assert logits.shape == (40, len(card["class_names"]))
    Image.fromarray(images[0].squeeze()).save(project / "image.png")
    printed = command("python", "-m", "serving.predict", "image.png", cwd=project).stdout
    assert printed.startswith(f"image.png: {card['class_names'][logits[0].argmax()]} ")


@pytest.mark.skipif(
    "DATA_MIRROR" not in os.environ or not fetch.answers("cifar10"), reason="DATA_MIRROR with CIFAR-10 is not set"
)
def test_the_real_cifar10_is_prepared_in_its_publishers_order(project: Path, command: Command) -> None:
    change(project, *recipes.changes("cifar10"))
    mirror = os.environ["DATA_MIRROR"]
    mirror = mirror if "://" in mirror else str(Path(mirror).absolute())
    command("python", "-m", "tasks", "download", cwd=project, DATA_MIRROR=mirror, PUBLIC_MIRRORS="off")
    command("python", "-m", "tasks", "transform", cwd=project)
    train, validation, test = (Split.read(name, project / "data/prepared") for name in SPLITS)
    assert [np.bincount(split.labels).tolist() for split in (train, validation, test)] == [
        [count] * 10 for count in (4500, 500, 1000)
    ]
    # Figures that those who use the dataset publish: the first labels, and the mean of the 50,000 training images.
    assert test.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert train.labels[:3].tolist() == [6, 9, 9]
    mean = (train.images.mean((0, 1, 2)) * 45_000 + validation.images.mean((0, 1, 2)) * 5_000) / 50_000 / 255
    assert mean == pytest.approx([0.49139968, 0.48215841, 0.44653091], abs=1e-7)


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
    printed = command("python", "-m", "flows", "run", "--dataset", "folder", cwd=project).stdout
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
    page = command("python", "-m", "flows", "report", cwd=project).stdout
    assert page.startswith("Verified")
    assert "<figcaption>red " in (project / "reports/report.html").read_text()


def test_ones_own_images_with_a_csv_file(project: Path, command: Command) -> None:
    inbox = project / "data/inbox"
    labels = [draw(inbox, number) for number in range(120)]
    rows = [f"{label}/{number}.jpg, {label}" for number, label in enumerate(labels)]
    (inbox / "labels.csv").write_text("image, label\n" + "\n".join(rows))
    change(project, *recipes.changes("csv"))
    assert repro(project, command)[0] == "Running"
    assert json.loads((project / "reports/metrics.json").read_text())["accuracy"] > 0.9
