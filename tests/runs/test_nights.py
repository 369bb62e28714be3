"""Nights whose worker or server ends before each of their steps: nothing works on, and the next one completes them."""

import json
import os
import signal
import subprocess
from hashlib import sha256
from pathlib import Path

import psutil
import pytest

from flows.promotion import history, store
from flows.runtime import server
from flows.runtime.schedule import WORKER
from serving import champion
from serving.champion import registry
from tests.support.nights import Prefect, free_port, left, scheduled, wait_for
from tests.support.params import ROOT
from tests.support.pausing.sitecustomize import PAUSED, RELEASED
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
PATIENCE_S = 120  # with a schedule that ends

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, command: Command) -> str:
    """The SHA-256 of the model that a run makes which nothing disturbs."""
    project = copy_project(tmp_path_factory.mktemp("undisturbed"), QUICK_DIGITS)
    command("python", "-m", "flows", "training", cwd=project)
    return sha256((project / "models/model.onnx").read_bytes()).hexdigest()


def pause_before(step: str) -> dict[str, str]:
    for path in (PAUSED, RELEASED):
        path.unlink(missing_ok=True)
    return {"PAUSE_BEFORE": step, "PYTHONPATH": str(ROOT / "tests/support/pausing")}


def wait_until_paused(schedule: subprocess.Popen[str]) -> None:
    """Read what it prints meanwhile, which nobody else does."""
    wait_for(schedule, "^paused before")


def in_service(root: Path, model: str) -> bool:
    """Tell whether the model is in service, which is whole then, as is what serves it."""
    pointed, entries = champion.read(root), history.read(root)
    if pointed:
        assert sha256(champion.content(root, pointed)).hexdigest() == model
    for entry in entries:
        assert store.check(root, entry).name == model
    return bool(entries)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("record", [WORKER, server.SCHEDULE], ids=["worker", "server"])
def test_a_night_goes_on_whose_worker_or_server_was_stopped_before_any_step(
    record: Path,
    number: signal.Signals,
    model: str,
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project, port = copy_project(tmp_path / "project", QUICK_DIGITS), free_port()
    monkeypatch.chdir(project)
    prefect, found = Prefect(port), []
    for name, step in STEPS.items():
        with scheduled(project, environment, tmp_path / "home", port, **pause_before(step)) as schedule:
            wait_for(schedule, "Ctrl-C ends it")
            assert prefect.start().ok
            wait_until_paused(schedule)
            processes = psutil.Process(schedule.pid).children(recursive=True)
            os.kill(json.loads(record.read_text())["pid"], number)
            if name == "the import":  # until it is over nothing ties the run to its worker
                RELEASED.touch()
            printed, _ = schedule.communicate(timeout=PATIENCE_S)
        said = [line for line in printed.splitlines() if line.startswith("schedule: ")]
        assert (schedule.returncode, len(said)) == (1, 1), f"{name}: {printed}"
        assert not left(processes), name
        found.append(in_service(registry(), model))
    assert found == sorted(found)
    with scheduled(project, environment, tmp_path / "home", port) as schedule:
        wait_for(schedule, "Ctrl-C ends it")
        assert {*prefect.states()} == {"Crashed"}
        assert prefect.start().ok
        wait_for(schedule, r"Finished in state (Promoted|Nothing new)\(")
    assert in_service(registry(), model)
    assert [entry.number for entry in history.read(registry())] == [1]
