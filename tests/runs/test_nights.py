"""Nights whose worker or server ends before each of their steps: nothing works on, and the next one completes them."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.promotion import history, judgement, store
from flows.promotion.judgement import Judgement
from flows.runtime import server
from flows.runtime.schedule import WORKER
from serving import champion
from serving.champion import registry
from tasks.harness.records import read_record
from tests.support.nights import Prefect, free_port, left, scheduled, wait_for, wait_until
from tests.support.params import ROOT
from tests.support.pausing.sitecustomize import PAUSE_BEFORE, PAUSED, RELEASED
from tests.support.project import QUICK_DIGITS, Command, copy_project

# What a night is about to do, in its order, as Python's audit events have it. Each is the first of a new schedule to
# come to: what was before it is done by then, or done again.
STEPS = {
    "the import": r"^import \('flows.promote'",
    "the clone": r"^subprocess.Popen .*'clone'",
    "download": r"^subprocess.Popen .*'repro', .*'download'",
    "transform": r"^subprocess.Popen .*'repro', .*'transform'",
    "train": r"^subprocess.Popen .*'repro', .*'train'",
    "evaluate": r"^subprocess.Popen .*'repro', .*'evaluate'",
    "export": r"^subprocess.Popen .*'repro', .*'export'",
    "the trial": r"^subprocess.Popen .*/packages'",
    "the verdict": r"^os.rename .*/verdicts/",
    "the model": r"^os.rename .*/registry/[0-9a-f]{64}'",
    "the entry": r"^os.link .*/history/",
    "the pointer": r"^os.rename .*/champion.json'",
    "the commit": r"^subprocess.Popen .*'commit'",
    "the branch": r"^subprocess.Popen .*'fetch'",
    "the end": r"^shutil.rmtree .*/retraining/checkout",
}
# What is stopped, and how: another end before each step, in each play.
ENDS = (
    (WORKER, signal.SIGKILL),
    (server.SCHEDULE, signal.SIGTERM),
    (WORKER, signal.SIGTERM),
    (server.SCHEDULE, signal.SIGKILL),
)
OF_RUNS = (signal.SIGKILL, signal.SIGTERM)
PATIENCE_S = 120  # with a schedule that ends


def plays(count: int) -> list[Any]:
    """Return the numbers of so many plays, of which CI has the first."""
    return [pytest.param(play, marks=pytest.mark.long if play else pytest.mark.nights) for play in range(count)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, command: Command) -> str:
    """The SHA-256 of the model that a run makes which nothing disturbs."""
    project = copy_project(tmp_path_factory.mktemp("undisturbed"), QUICK_DIGITS)
    command("python", "-m", "flows", "training", cwd=project)
    return sha256((project / "models/model.onnx").read_bytes()).hexdigest()


def pause_before(step: str | None) -> None:
    """Have the next run wait before that step; None: before none."""
    for path in (PAUSED, RELEASED, PAUSE_BEFORE):
        path.unlink(missing_ok=True)
    if step:
        PAUSE_BEFORE.parent.mkdir(exist_ok=True)
        PAUSE_BEFORE.write_text(step)


def wait_until_paused(schedule: subprocess.Popen[str]) -> None:
    """Read what it prints meanwhile, which nobody else does."""
    wait_for(schedule, "^paused before")


def verdicts() -> list[str]:
    """Return what the verdicts say of the model, after how the night ended."""
    paths = (registry() / judgement.FOLDER).glob("*.json")
    return [read_record(path, Judgement).headline.partition(": ")[2] for path in paths]


def in_service(root: Path, model: str) -> bool:
    """Tell whether the model is in service, which is whole then, as is what serves it."""
    pointed, entries = champion.read(root), history.read(root)
    if pointed:
        assert sha256(champion.content(root, pointed)).hexdigest() == model
    for entry in entries:
        assert store.check(root, entry).name == model
    return bool(entries)


@pytest.fixture
def nights(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Callable[[], AbstractContextManager[subprocess.Popen[str]]], Prefect]:
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


@pytest.mark.parametrize("play", plays(len(ENDS)))
def test_a_night_goes_on_whose_worker_or_server_was_stopped_before_any_step(
    play: int, model: str, nights: tuple[Callable[[], AbstractContextManager[subprocess.Popen[str]]], Prefect]
) -> None:
    (scheduled_nights, prefect), found = nights, []
    for index, (name, step) in enumerate(STEPS.items()):
        record, number = ENDS[(index + play) % len(ENDS)]
        pause_before(step)
        with scheduled_nights() as schedule:
            assert prefect.start().ok
            wait_until_paused(schedule)
            processes = psutil.Process(schedule.pid).children(recursive=True)
            os.kill(json.loads(record.read_text())["pid"], number)
            if name == "the import":  # until it is over nothing ties the run to its worker
                RELEASED.touch()
            printed, _ = schedule.communicate(timeout=PATIENCE_S)
        said = [line for line in printed.splitlines() if line.startswith("schedule: ")]
        assert (schedule.returncode, len(said)) == (1, 1), f"{name}, {record}, {number}: {printed}"
        assert not left(processes), name
        found.append(in_service(registry(), model))
    assert found == sorted(found)
    pause_before(None)
    with scheduled_nights() as schedule:
        assert {*prefect.states()} == {"Crashed"}
        assert prefect.start().ok
        wait_for(schedule, r"Finished in state (Promoted|Nothing new)\(")
    assert in_service(registry(), model)
    assert [entry.number for entry in history.read(registry())] == [1]


@pytest.mark.parametrize("play", plays(len(OF_RUNS)))
def test_a_night_goes_on_after_one_that_was_stopped_before_any_step(
    play: int, model: str, nights: tuple[Callable[[], AbstractContextManager[subprocess.Popen[str]]], Prefect]
) -> None:
    (scheduled_nights, prefect), found = nights, []
    with scheduled_nights() as schedule:
        for index, (name, step) in enumerate(STEPS.items()):
            pause_before(step)
            assert prefect.start().ok
            wait_until_paused(schedule)
            run = psutil.Process(int(PAUSED.read_text()))
            processes = [run, *run.children(recursive=True)]
            run.send_signal(OF_RUNS[(index + play) % len(OF_RUNS)])
            psutil.wait_procs(processes, PATIENCE_S)
            assert not left(processes), name
            wait_until(lambda: {*prefect.states()} == {"Crashed"}, PATIENCE_S)
            found.append(in_service(registry(), model))
        # Of all but the one that put it there. Prefect's worker has them written beside the next run.
        wait_until(lambda: verdicts().count("no model was put into service") == len(STEPS) - 1, PATIENCE_S)
        pause_before(None)
        assert prefect.start().ok
        wait_for(schedule, r"Finished in state (Promoted|Nothing new)\(")
        assert set(prefect.states()[:-1]) == {"Crashed"}
    assert found == sorted(found)
    assert in_service(registry(), model)
    assert [entry.number for entry in history.read(registry())] == [1]
