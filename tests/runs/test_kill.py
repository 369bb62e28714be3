"""Runs that are stopped at many moments: nothing is left, and the next run gives what an undisturbed one gives."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

from flows.runtime import dvc_files, server
from tests.support.params import ROOT
from tests.support.project import QUICK_DIGITS, Command, copy_project

DVC_YAML = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
STAGES = {
    name: stage for name, stage in DVC_YAML.items() if "foreach" not in stage
}  # of those on request there is none
FLOW = ("python", "-m", "flows", "training")
ENDS_WITHIN_S = 2.0  # after whoever started it has ended
SAVED_OFTEN = {"CHECKPOINT_EVERY_S": "0.1"}  # the training
STOPS_WITHIN_S = 30.0  # after a signal, its server included
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the parameters of digits."""
    return copy_project(tmp_path_factory.mktemp("kill"), QUICK_DIGITS)


@dataclass(frozen=True)
class Undisturbed:
    """A run that was not stopped."""

    outputs: dict[str, bytes]
    lock: Any  # dvc.lock, with the hashes of all that was read and written
    seconds: dict[str, float]  # by stage


@pytest.fixture(scope="module")
def undisturbed(project: Path, command: Command) -> Undisturbed:
    seconds = {}
    for stage in STAGES:
        began = time.monotonic()
        command("dvc", "repro", "--single-item", stage, cwd=project)
        seconds[stage] = time.monotonic() - began
    return Undisturbed(outputs(project, *STAGES), read_lock(project), seconds)


@pytest.fixture
def start(project: Path, environment: dict[str, str]) -> Iterator[Start]:
    """Start a command in the project, its output and errors together in `stdout`."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        pipe, merged = subprocess.PIPE, subprocess.STDOUT
        started.append(
            subprocess.Popen(
                words,
                cwd=project,
                env=environment | SAVED_OFTEN,
                stdout=pipe,
                stderr=merged,
                text=True,
                process_group=0,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def outputs(project: Path, *stages: str) -> dict[str, bytes]:
    """Read the outputs of the stages that are there, without the curve, which grows as the training goes."""
    listed = [out for stage in stages for kind in ("outs", "metrics", "plots") for out in STAGES[stage].get(kind, [])]
    names = {next(iter(out)) if isinstance(out, dict) else out for out in listed} - {"reports/learning_curve.csv"}
    files = [file for name in names for file in (project / name, *(project / name).rglob("*")) if file.is_file()]
    return {str(file.relative_to(project)): file.read_bytes() for file in files}


def read_lock(project: Path) -> Any:
    return YAML(typ="safe").load((project / "dvc.lock").read_text())


def running(project: Path) -> list[str]:
    """List the processes that have the project as their working directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(project) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        except psutil.Error:
            continue
    return found


@contextmanager
def ends_soon(project: Path) -> Iterator[None]:
    """Fail if something in the project still runs two seconds after the body."""
    yield
    deadline = time.monotonic() + ENDS_WITHIN_S
    while (left := running(project)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left


def forget(project: Path, *stages: str) -> None:
    """Make DVC run these stages again, or every one."""
    lock = read_lock(project)
    for stage in stages or STAGES:
        lock["stages"].pop(stage, None)
    YAML().dump(lock, project / "dvc.lock")
    shutil.rmtree(project / ".dvc/cache/runs", ignore_errors=True)


def mend(project: Path) -> None:
    """Do what the next flow would do at its start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        dvc_files.remove_damaged()


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if words in line:
            return
    pytest.fail(f"it ended without {words!r}:\n{''.join(printed)}")


@pytest.mark.registry
@pytest.mark.parametrize("stage", STAGES)
def test_dvc_is_killed_at_many_moments_of_a_stage(
    project: Path, undisturbed: Undisturbed, start: Start, stage: str
) -> None:
    repro = ("dvc", "repro", "--force", "--single-item", stage)
    for moment, number in zip((0.3, 0.5, 0.7, 0.9), (signal.SIGKILL, signal.SIGTERM) * 2, strict=True):
        process = start(*repro)
        time.sleep(undisturbed.seconds[stage] * moment)
        with ends_soon(project):
            process.send_signal(number)
        process.communicate()
        assert outputs(project, stage).items() <= undisturbed.outputs.items(), "half-written under a real name"
        mend(project)

    start(*repro).communicate()
    start("dvc", "repro").communicate()  # the others, if dvc.lock was cut off
    assert outputs(project, *STAGES) == undisturbed.outputs
    assert read_lock(project) == undisturbed.lock


@pytest.mark.parametrize(
    ("number", "stage", "words", "whole_group"),
    [
        (signal.SIGINT, "transform", "Running stage 'transform'", False),
        (signal.SIGTERM, "train", "Epoch 20/60", False),
        (signal.SIGTERM, "train", "Epoch 20/60", True),
    ],
)
def test_the_flow_is_stopped_and_says_where(
    project: Path,
    undisturbed: Undisturbed,
    start: Start,
    number: signal.Signals,
    stage: str,
    words: str,
    whole_group: bool,
) -> None:
    forget(project)
    flow = start(*FLOW)
    read_until(flow, words)
    (os.killpg if whole_group else os.kill)(flow.pid, number)
    printed, _ = flow.communicate(timeout=STOPS_WITHIN_S)
    assert flow.returncode == 128 + number
    assert printed.splitlines()[-1] == (
        f"training was stopped by {number.name} in the stage {stage}; the same command goes on there"
    )
    assert "Traceback" not in printed
    assert not running(project)


def test_ctrl_c_to_dvc_ends_the_stage_which_says_so(project: Path, undisturbed: Undisturbed, start: Start) -> None:
    process = start("dvc", "repro", "--force", "--single-item", "train")
    read_until(process, "Epoch 20/60")
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=STOPS_WITHIN_S)
    assert process.returncode == 255, "DVC's own: it takes the stage's end for a failure"
    assert "train: stopped by SIGINT. Go on with `make run` or `dvc repro`" in printed
    assert not running(project)
    assert not outputs(project, "train")


def test_the_flow_is_killed_and_the_next_one_ends_what_it_left(
    project: Path, undisturbed: Undisturbed, start: Start
) -> None:
    forget(project)
    flow = start(*FLOW)
    read_until(flow, "Epoch 30/60")
    flow.kill()
    left = json.loads((project / server.TEMPORARY).read_text())["pid"]
    time.sleep(ENDS_WITHIN_S)
    assert [line.split()[0] for line in running(project)] == [str(left)]
    assert not outputs(project, "train")

    again = start(*FLOW)
    read_until(again, "where a run was stopped")
    assert not psutil.pid_exists(left)
    again.communicate()
    assert again.returncode == 0
    assert not running(project)
    assert outputs(project, *STAGES) == undisturbed.outputs
    assert read_lock(project) == undisturbed.lock


def test_its_server_is_killed_and_the_flow_ends_after_the_stage_that_is_running(
    project: Path, undisturbed: Undisturbed, start: Start
) -> None:
    forget(project)
    flow = start(*FLOW)
    read_until(flow, "Epoch 2/60")
    os.kill(json.loads((project / server.TEMPORARY).read_text())["pid"], signal.SIGKILL)
    printed, _ = flow.communicate(timeout=STOPS_WITHIN_S + 90)  # the training goes on to its end
    assert flow.returncode == 1
    assert "train: ran" in printed
    last = printed.splitlines()[-1]
    assert re.fullmatch(
        r"training stopped. Prefect's server at http://127.0.0.1:\d+/api has gone; "
        "what the stages made is kept, the same command goes on",
        last,
    )
    assert "Traceback" not in printed
    assert not running(project)
    assert read_lock(project)["stages"]["train"] == undisturbed.lock["stages"]["train"]
    assert outputs(project, "train").items() <= undisturbed.outputs.items()


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGINT, ""), (signal.SIGTERM, ""), (signal.SIGINT, "Epoch 3"), (signal.SIGTERM, "Epoch 3")],
)
def test_a_stage_alone_is_stopped_and_says_how_to_go_on(
    project: Path, undisturbed: Undisturbed, start: Start, number: signal.Signals, words: str
) -> None:
    stage = start("python", "-m", "tasks", "train")
    if words:
        read_until(stage, words)
    else:
        time.sleep(0.5)  # it is importing torch
    stage.send_signal(number)
    printed, _ = stage.communicate()
    assert stage.returncode == 128 + number
    assert printed.splitlines()[-1] == f"train: stopped by {number.name}. Go on with `make run` or `dvc repro`"
    assert "Traceback" not in printed
    assert not list(project.rglob(".partial-*"))


def test_a_second_run_leaves_and_names_the_first_or_waits_for_it(
    project: Path, undisturbed: Undisturbed, start: Start, command: Command
) -> None:
    forget(project, "export")
    first = start(*FLOW)
    read_until(first, "Running stage 'export'")
    params = (project / "params.yaml").read_bytes()
    refused = command(*FLOW, "-S", "train.epochs=1", cwd=project, check=False)
    assert refused.returncode == 1
    last = refused.stdout.splitlines()[-1]
    assert last.startswith(f"training failed. the run with pid {first.pid} on ")
    assert last.endswith("is at work in this project; make run WAIT=SECONDS, or --wait SECONDS, waits for it")
    assert (project / "params.yaml").read_bytes() == params

    waited = command(*FLOW, "--wait", "60", cwd=project)
    assert waited.stdout.startswith(f"Waiting for the run with pid {first.pid} on ")
    assert first.poll() == 0


@pytest.mark.parametrize(
    "words",
    [("dvc", "repro", "--force", "--single-item", "evaluate"), ("python", "-m", "tasks", "evaluate")],
    ids=["dvc repro", "the stage"],
)
def test_a_module_is_edited_while_its_stage_runs(
    project: Path, undisturbed: Undisturbed, start: Start, words: tuple[str, ...]
) -> None:
    module = project / "tasks/evaluation/pictures.py"
    before = module.read_text()
    process = start(*words)
    read_until(process, " device, ")
    module.write_text(before + "# edited\n")
    printed, _ = process.communicate()
    module.write_text(before)
    assert process.returncode
    assert (
        "evaluate: tasks/evaluation/pictures.py changed while the stage ran; nothing was published, run it again"
        in printed
    )
    if words[0] == "dvc":
        assert not outputs(project, "evaluate")
        assert start("dvc", "repro").wait(120) == 0
    assert outputs(project, *STAGES) == undisturbed.outputs
    assert read_lock(project) == undisturbed.lock
