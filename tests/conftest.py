"""Fixtures: a working directory with 8 made images, stage by stage, and commands as a user runs them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from tasks.data import datasets
from tests.support.made import made_archives, with_archives, write_raw
from tests.support.params import write_params
from tests.support.project import Command


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the nights and then the whole runs, which take longest: the last one would run alone."""
    items.sort(key=lambda item: (not item.get_closest_marker("nights"), "runs" not in item.path.parts))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a params.yaml of the CHEAPEST profile, and nothing set by the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("CHECKPOINT_EVERY_S", "DATA_MIRROR", "PUBLIC_MIRRORS"):
        monkeypatch.delenv(name, raising=False)
    write_params()
    return tmp_path


@pytest.fixture
def archives(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Archives of 8 training and 8 test images, which take Fashion-MNIST's place in the table; no mirrors."""
    files = made_archives()
    row = datasets.DATASETS["fashion_mnist"]
    monkeypatch.setitem(datasets.DATASETS, "fashion_mnist", with_archives(row, files))
    return files


@pytest.fixture
def raw(workspace: Path) -> Path:
    """data/raw in the workspace, as download leaves it, with 8 training and 8 test images."""
    return write_raw(workspace)


@pytest.fixture(scope="session")
def after(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the workspace as it is after a stage: each runs once, and the tests take copies."""
    stages = ("transform", "train", "evaluate", "export")

    @cache
    def run(stage: str) -> Path:
        before = stages[: stages.index(stage)]
        folder = tmp_path_factory.mktemp(stage)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            if before:
                shutil.copytree(run(before[-1]), folder, dirs_exist_ok=True)
            else:
                write_params()
                write_raw(folder)
            # Only now: whoever runs no stage, as the process that hands the tests out, need not import torch.
            import_module(f"tasks.{stage}").main()
        return folder

    return run


@pytest.fixture
def prepared(after: Callable[[str], Path], workspace: Path) -> Path:
    """data/prepared in the workspace: 6 training, 2 validation and 8 test images."""
    shutil.copytree(after("transform"), workspace, dirs_exist_ok=True)
    return Path("data/prepared")


@pytest.fixture
def trained(after: Callable[[str], Path], workspace: Path) -> Path:
    """models/model.pth and models/model.json in the workspace."""
    shutil.copytree(after("train"), workspace, dirs_exist_ok=True)
    return Path("models")


@pytest.fixture
def evaluated(after: Callable[[str], Path], workspace: Path) -> Path:
    """reports/ in the workspace, all but parity.json."""
    shutil.copytree(after("evaluate"), workspace, dirs_exist_ok=True)
    return Path("reports")


@pytest.fixture
def exported(after: Callable[[str], Path], workspace: Path) -> Path:
    """models/ and reports/ in the workspace, whole."""
    shutil.copytree(after("export"), workspace, dirs_exist_ok=True)
    return Path("models")


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
