"""A Python that lacks what the stages need says so, at both doors."""

import subprocess
import sys

import pytest

from tasks.harness import interpreter
from tests.support.params import ROOT


@pytest.mark.parametrize("door", [("tasks", "download"), ("tasks", "train"), ("flows", "training")])
def test_a_python_without_the_packages_is_refused_at_the_door(door: tuple[str, str]) -> None:
    # -S leaves out site-packages: a Python without the project's packages.
    words = (sys.executable, "-S", "-m", *door)
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    start = f"{sys.executable} (Python {sys.version.split()[0]}) cannot run the stages: it lacks numpy, "
    assert answer.stderr.startswith(start)
    assert "PATH=.venv/bin:$PATH dvc repro" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("version", [(3, 10, 9), (3, 14, 0)])
def test_another_version_is_refused(version: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match=r"they need Python 3\.11, 3\.12 or 3\.13"):
        interpreter.check()


def test_this_python_is_taken() -> None:
    interpreter.check()
