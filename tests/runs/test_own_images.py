"""One's own images under version control: DVC takes the place that the README names, and a second clone runs."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows import recipes
from tests.support.project import Command, copy_project

QUICK = ["transform.image_size=[8, 8]", "train.epochs=1"]
STAGES = ("download", "transform", "train", "evaluate", "export")


def git(project: Path, *words: str) -> str:
    name = ("-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
    command = ("git", *name, *words)
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout


def put(folder: Path, count: int) -> None:
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        (folder / f"class {number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"class {number % 2}" / f"{number}.png")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_project(tmp_path / "first clone", [*recipes.changes("folder"), *QUICK])


def test_a_second_clone_runs_after_dvc_pull(project: Path, command: Command, tmp_path: Path) -> None:
    put(project / "data/inbox", 60)
    assert git(project, "status", "--short") == "", "images are nothing that git would take"
    command("dvc", "remote", "add", "--default", "storage", str(tmp_path / "remote"), cwd=project)
    command("dvc", "add", "data/inbox", cwd=project)
    command("dvc", "repro", cwd=project)
    git(project, "add", "--all")
    git(project, "commit", "-qm", "our images")
    assert "data/inbox.dvc" in git(project, "ls-files").splitlines()
    command("dvc", "push", cwd=project)

    git(tmp_path, "clone", "-q", str(project), "second clone")
    second = tmp_path / "second clone"
    command("dvc", "pull", cwd=second)
    assert len(list(second.glob("data/inbox/*/*.png"))) == 60
    printed = command("dvc", "repro", cwd=second).stdout
    assert re.findall(r"^Stage '(\w+)' didn't change", printed, re.MULTILINE) == list(STAGES)
    assert git(second, "status", "--short") == ""

    Path(second, "data/inbox/class 0/0.png").unlink()
    command("dvc", "add", "data/inbox", cwd=second)
    assert "Running stage 'transform'" in command("dvc", "repro", "transform", cwd=second).stdout


def test_images_are_imported_where_the_readme_puts_them(project: Path, command: Command, tmp_path: Path) -> None:
    put(tmp_path / "bucket", 60)
    command("dvc", "import-url", str(tmp_path / "bucket"), "data/inbox", cwd=project)
    assert "Running stage 'transform'" in command("dvc", "repro", "transform", cwd=project).stdout
    shutil.rmtree(project / "data/inbox")
    command("dvc", "checkout", "data/inbox.dvc", cwd=project)
    assert len(list(project.glob("data/inbox/*/*.png"))) == 60
