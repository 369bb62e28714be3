"""python -m tasks STAGE: what it refuses before the stage."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tasks.__main__ import ON_REQUEST
from tests.support.params import ROOT, write_params

STAGES = ("download", "transform", "train", "evaluate", "export", *ON_REQUEST)


def python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", *words)
    return subprocess.run(command, cwd=cwd, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [(), ("evaluat",), ("train", "evaluate")])
def test_who_names_no_stage_is_told_the_stages(words: tuple[str, ...], workspace: Path) -> None:
    answer = python("tasks", *words, cwd=workspace)
    assert answer.returncode == 1
    assert answer.stderr == f"usage: python -m tasks STAGE, which is one of {', '.join(STAGES)}\n"


def test_a_stages_module_says_where_the_door_is(workspace: Path) -> None:
    answer = python("tasks.download", cwd=workspace)
    assert answer.returncode == 1
    assert answer.stderr == "the stages have one door: python -m tasks download\n"
    for stage in STAGES:
        assert f"the stages have one door: python -m tasks {stage}" in (ROOT / f"tasks/{stage}.py").read_text()


def test_params_are_refused_as_a_whole_before_the_stage(workspace: Path) -> None:
    path = workspace / "params.yaml"
    path.write_text(
        path.read_text().replace("download_retries: 2", "download_retries: -2").replace("seed: 0", "sed: 0")
    )
    answer = python("tasks", "download", cwd=workspace)
    assert answer.returncode == 1
    assert answer.stderr.startswith("download: params.yaml is refused:\n")
    assert "flow.download_retries = -2" in answer.stderr
    assert "train.sed: unknown key" in answer.stderr
    assert not (workspace / "data").exists()


def test_a_stage_runs(workspace: Path) -> None:
    write_params(download={"dataset": "digits"})
    answer = python("tasks", "download", cwd=workspace)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert (workspace / "data/raw/digits/digits.csv").is_file()


WORKS_S = 60
LEAVES_A_WORKER = f"""
import multiprocessing, time
from importlib import import_module
from tasks import __main__ as door

def main():
    worker = multiprocessing.Process(target=time.sleep, args=({WORKS_S},), daemon=True)
    worker.start()
    print(worker.pid)

import_module("tasks.download").main = main
door.run("download")
"""


def test_a_stage_that_ends_takes_its_worker_processes_along(workspace: Path) -> None:
    words = (sys.executable, "-c", LEAVES_A_WORKER)
    environment = {"PYTHONPATH": str(ROOT)}
    answer = subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=WORKS_S / 2)
    assert answer.stderr == ""
    assert not psutil.pid_exists(int(answer.stdout))


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="pipes that keep what was written apart are Linux's")
def test_why_a_stage_failed_is_written_in_one_piece(workspace: Path) -> None:
    """Of several processes that fail at once, as of a training that is shared, each then has a line of its own."""
    read, write = os.pipe2(os.O_DIRECT)
    words, environment = ("-m", "tasks", "train"), {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    answer = subprocess.run((sys.executable, *words), env=environment, stderr=write, check=False)
    os.close(write)
    assert answer.returncode == 1
    first, rest = os.read(read, 1 << 16), os.read(read, 1)
    os.close(read)
    assert first.startswith(b"train: data/prepared")
    assert first.endswith(b"\n")
    assert rest == b""
