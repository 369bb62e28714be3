"""Images of one's own from their files to a model, and CIFAR-10 as it is published."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows import recipes
from tasks.data import fetch
from tasks.prepared import SPLITS, Split
from tests.support.project import Command, change, copy_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("datasets"))


def repro(project: Path, command: Command) -> list[str]:
    """Run `dvc repro` and return what DVC said of each stage: Running, didn't or is (cached)."""
    printed = command("dvc", "repro", cwd=project).stdout
    return re.findall(r"^(Running|Stage '\w+' \w+)", printed, re.MULTILINE)


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
