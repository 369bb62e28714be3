"""Virtual environments of their own, for what the lock has no place for."""

import os
import subprocess
import sys
from pathlib import Path


def environment(folder: Path, *requirements: str) -> Path:
    """Install packages from the registry, as they come, and return the folder of their commands."""
    uv = (sys.executable, "-m", "uv")
    subprocess.run((*uv, "venv", "--quiet", "--python", sys.executable, folder), check=True)
    python = ("--python", str(folder / "bin/python"))
    subprocess.run((*uv, "pip", "install", "--quiet", *python, *requirements), check=True)
    return folder / "bin"


def output(*words: str | Path, folder: Path | None = None) -> str:
    """Return what a command prints, which sees nothing of this environment's packages; it runs in a folder, or here."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(words, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, check=False)
    assert answer.returncode == 0, answer.stdout
    return answer.stdout
