"""Fixtures: a working directory with 8 made images, and copies of the project in which real runs take place."""

import gzip
import hashlib
import io
import os
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from tasks import datasets, evaluate, params, train, transform
from tasks.datasets import Archive, Dataset
from tasks.prepared import Images, Labels

ROOT = Path(__file__).parent.parent

# The fewest epochs, images and batches that still go through every line.
CHEAPEST = {
    "transform": {"validation_fraction": 0.25, "test_fraction": 0.25, "seed": 0},
    "train": {
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 0.01,
        "normalize": "none",
        "seed": 0,
        "threads": 1,
    },
    "evaluate": {"batch_size": 5, "pictures": 4},
    "export": {"provider": "auto", "tolerance": 1e-4, "batch_sizes": [1, 3]},
}

Command = Callable[..., subprocess.CompletedProcess[str]]


def shipped_params() -> str:
    """Return params.yaml as committed, whatever a run has written to it since; with other keys it was edited."""
    here = (ROOT / "params.yaml").read_text()
    answer = subprocess.run(
        ("git", "show", "HEAD:./params.yaml"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    keys = [re.findall(r"^ *\w+:", text, re.MULTILINE) for text in (here, answer.stdout)]
    return answer.stdout if keys[0] == keys[1] else here


def write_params(**sections: dict[str, object]) -> params.Params:
    """Write params.yaml of the CHEAPEST profile, with changes by section, to the working directory."""
    document = YAML(typ="safe").load(shipped_params())
    for changes in (CHEAPEST, sections):
        for section, values in changes.items():
            document[section].update(values)
    with params.PATH.open("w") as file:
        YAML(typ="safe").dump(document, file)
    return params.load()


def made_images(count: int, seed: int = 0) -> tuple[Images, Labels]:
    """Make images `uint8 [N, 28, 28, 1]` and labels `int64 [N]`: two classes in turn."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 28, 28, 1), np.uint8)
    return images, np.arange(count) % 2


def idx(values: Images | Labels) -> bytes:
    """Write an array as an IDX file of unsigned bytes, images without their channel axis."""
    array = values.astype(np.uint8).squeeze(-1) if values.ndim == 4 else values.astype(np.uint8)
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def made_archives(training: int = 8, test: int = 8) -> dict[str, bytes]:
    """Make the four archives of a Fashion-MNIST with fewer images."""
    files: dict[str, bytes] = {}
    for prefix, count, seed in (("train", training, 1), ("t10k", test, 2)):
        images, labels = made_images(count, seed)
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(idx(images), mtime=0)
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(idx(labels), mtime=0)
    return files


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a params.yaml of the CHEAPEST profile, and no mirror set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_MIRROR", raising=False)
    write_params()
    return tmp_path


@pytest.fixture
def archives(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Archives of 8 training and 8 test images, which take Fashion-MNIST's place in the table; no mirrors."""
    files = made_archives()
    row = datasets.DATASETS["fashion_mnist"]
    monkeypatch.setitem(datasets.DATASETS, "fashion_mnist", with_archives(row, files))
    return files


def with_archives(row: Dataset, files: dict[str, bytes]) -> Dataset:
    listed = tuple(Archive(name, len(data), hashlib.md5(data).hexdigest()) for name, data in files.items())
    return replace(row, archives=listed, mirrors=())


def made_cifar(name: str, images: int) -> dict[str, bytes]:
    """Make the archive of a CIFAR with `images` in each batch, pickled as Python 2 did, and its class names."""
    row = datasets.DATASETS[name]
    if name == "cifar10":
        labels, meta = "labels", ("batches.meta", "label_names")
        names, batches = [f"class {k}" for k in range(10)], [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    else:
        labels, meta = "fine_labels", ("meta", "fine_label_names")
        names, batches = [f"class {k}" for k in range(100)], ["train", "test"]
    files: dict[str, Any] = {meta[0]: {meta[1]: names}}
    for seed, batch in enumerate(batches):
        rows = np.random.default_rng(seed).integers(0, 256, (images, 3072), np.uint8)
        files[batch] = {"data": rows, labels: [k % 2 for k in range(images)]}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for file, contents in files.items():
            data = pickle.dumps(contents, protocol=2)
            member = tarfile.TarInfo(f"{row.folder}/{file}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return {row.archives[0].name: buffer.getvalue()}


def made(name: str, images: int = 8) -> dict[str, bytes]:
    """Make the archives of dataset `name` in its publisher's format, with `images` in each file."""
    if datasets.DATASETS[name].format == "idx":
        return made_archives(images, images)
    return made_cifar(name, images)


@pytest.fixture
def raw(workspace: Path) -> Path:
    """data/raw in the workspace, as download leaves it, with 8 training and 8 test images."""
    return write_raw(workspace)


def write_raw(project: Path) -> Path:
    folder = project / "data/raw/FashionMNIST/raw"
    folder.mkdir(parents=True)
    for name, data in made_archives().items():
        (folder / name).write_bytes(data)
        (folder / name).with_suffix("").write_bytes(gzip.decompress(data))
    return folder


@pytest.fixture
def prepared(raw: Path) -> Path:
    """data/prepared in the workspace: 6 training, 2 validation and 8 test images."""
    transform.main()
    return Path("data/prepared")


@pytest.fixture
def trained(prepared: Path) -> Path:
    """models/model.pth and models/model.json in the workspace."""
    train.main()
    return Path("models")


@pytest.fixture
def evaluated(trained: Path) -> Path:
    """reports/ in the workspace, all but parity.json."""
    evaluate.main()
    return Path("reports")


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="session")
def environment(prefect_home: Path) -> dict[str, str]:
    """Variables for a command: the project's Python first on the PATH, no mirror, no server.

    DVC runs a stage in the user's shell. /bin/sh is the one that everybody has, and the strictest: Debian's stays
    between DVC and the stage where bash makes way for it.
    """
    env = {name: value for name, value in os.environ.items() if name not in ("DATA_MIRROR", "PREFECT_API_URL")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    return env | {"PATH": path, "PREFECT_HOME": str(prefect_home), "PYTHONUNBUFFERED": "1", "SHELL": "/bin/sh"}


@pytest.fixture(scope="session")
def command(environment: dict[str, str]) -> Command:
    """Run a command; output and errors come together in `stdout`."""

    def run(*words: str, cwd: Path, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        answer = subprocess.run(
            words,
            cwd=cwd,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )
        if check:
            assert answer.returncode == 0, f"{' '.join(words)} gave {answer.returncode}:\n{answer.stdout}"
        return answer

    return run


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def copy_project(folder: Path, mirror: str = "") -> Path:
    """Copy what git tracks, as it is in the working tree, into a git repository of its own.

    With `mirror`, that is Fashion-MNIST's only mirror there, tried once by the stage and once by the flow.
    """
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(shipped_params())
    if mirror:
        (public,) = datasets.DATASETS["fashion_mnist"].mirrors
        edit(folder / "tasks/datasets.py", public, mirror)
        edit(folder / "tasks/download.py", "ATTEMPTS = 3", "ATTEMPTS = 1")
        edit(folder / "params.yaml", "download_retries: 2", "download_retries: 0")
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "copy")):
        subprocess.run((*git, *words), cwd=folder, check=True)
    return folder
