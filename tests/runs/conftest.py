"""What the tests of nights share that are stopped before each of their steps."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.nights import Prefect, free_port, scheduled, wait_for
from tests.support.params import ROOT
from tests.support.project import QUICK_DIGITS, Command, copy_project
from tests.support.steps import Nights


@pytest.fixture(scope="module")
def nights_model(tmp_path_factory: pytest.TempPathFactory, command: Command) -> str:
    """The SHA-256 of the model that a run makes which nothing disturbs."""
    project = copy_project(tmp_path_factory.mktemp("undisturbed"), QUICK_DIGITS)
    command("python", "-m", "flows", "training", cwd=project)
    return sha256((project / "models/model.onnx").read_bytes()).hexdigest()


@pytest.fixture
def nights(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    """A schedule of a project, the working directory, whose runs wait before the step that `pause_before` names."""
    project, port = copy_project(tmp_path / "project", QUICK_DIGITS), free_port()
    monkeypatch.chdir(project)
    pausing = str(ROOT / "tests/support/pausing")

    @contextmanager
    def schedule() -> Iterator[subprocess.Popen[str]]:
        with scheduled(project, environment, tmp_path / "home", port, PYTHONPATH=pausing) as process:
            wait_for(process, "Ctrl-C ends it")
            yield process

    return schedule, Prefect(port)
