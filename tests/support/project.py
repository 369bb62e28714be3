"""The project itself, and copies of it in which real runs take place."""

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from flows import overrides
from tests.support.params import ROOT, shipped_params

# Variables of a machine that reaches no mirror: the only one that is asked is a closed port.
NO_MIRROR = {"DATA_MIRROR": "http://127.0.0.1:9/", "PUBLIC_MIRRORS": "off"}

# Digits by the quickstart's network: a training of seconds, and sixty epochs to stop it in.
QUICK_DIGITS = (
    "download.dataset=digits",
    "train.network=mlp",
    "train.epochs=60",
    "train.batch_size=64",
    "train.learning_rate=0.1",
    "train.momentum=0.0",
    "train.weight_decay=0.0",
    "train.schedule=constant",
    "train.augment.flip=false",
    "train.precision=float32",
    "train.normalize=none",
)

Command = Callable[..., subprocess.CompletedProcess[str]]


def copy_project(folder: Path, changes: Sequence[str] = ()) -> Path:
    """Copy what git tracks, as it is in the working tree, into a git repository of its own.

    Its params.yaml is the one that is committed here, with `changes` made, `key=value` each, and of one thread: other
    tests have the other cores, where two threads would wait for each other longer than they compute.
    """
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    config = folder / ".dvc/config"  # no test writes to the remote that a project has
    config.write_text(re.sub(r"(?m)^\s*remote\s*=.*$", "", config.read_text()))
    (folder / "params.yaml").write_text(overrides.apply(shipped_params(), ["train.threads=1", *changes])[0])
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "copy")):
        subprocess.run((*git, *words), cwd=folder, check=True)
    return folder


def change(project: Path, *changes: str) -> None:
    """Change params.yaml of a copy, `key=value` each."""
    path = project / "params.yaml"
    path.write_text(overrides.apply(path.read_text(), list(changes))[0])
