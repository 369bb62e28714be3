"""Retraining on a schedule: a server and the flow on it, started and ended together."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path

import psutil
import pytest
import requests
from PIL import Image

from flows import overrides
from flows.promotion import history, judgement
from flows.runtime import labels, project_lock, server
from flows.runtime.schedule import WORKER
from serving.champion import registry
from tasks.data.datasets import DATASETS
from tests.support.nights import (
    CRON,
    RETRAINING,
    WAITS_S,
    ZONE,
    Prefect,
    free_port,
    left,
    scheduled,
    wait_for,
    wait_until,
)
from tests.support.project import QUICK_DIGITS, Command, copy_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with the parameters of digits, and an edit that is not committed."""
    project = copy_project(tmp_path / "Jürgen's", QUICK_DIGITS)
    with (project / "README.md").open("a") as file:
        file.write("An edit.\n")
    return project


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def schedule(project: Path, port: int, environment: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with scheduled(project, environment, tmp_path / "home", port) as process:
        yield process


def test_runs_of_a_schedule_complete_say_that_nothing_is_new_or_are_skipped(
    project: Path, port: int, schedule: subprocess.Popen[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One test, because each run takes seconds to start: the deployments of a schedule, its runs, and its end."""
    monkeypatch.chdir(project)
    prefect = Prefect(port)

    def git(*words: str) -> str:
        return command("git", *words, cwd=project).stdout

    printed = wait_for(schedule, f"its runs are at http://127.0.0.1:{port}. Ctrl-C ends it")
    assert "not trained, because it is not committed: README.md\n" in printed
    page = requests.get(f"http://127.0.0.1:{port}", timeout=10)
    assert (page.ok, "<title>Prefect" in page.text) == (True, True)
    (due,) = prefect.deployment("nightly")["schedules"]
    assert (due["schedule"]["cron"], due["schedule"]["timezone"]) == (CRON, ZONE)
    assert prefect.start().status_code == 201
    wait_for(schedule, "Running stage 'train'")
    os.kill(json.loads(project_lock.NIGHT.read_text())["pid"], signal.SIGKILL)  # the next one goes on
    prefect.say_that_images_arrived()
    printed = wait_for(schedule, r"Finished in state Promoted\(")
    assert any("download: restored" in line for line in printed)
    assert any("Parity passed" in line for line in printed)
    prefect.say_that_images_arrived(times=3)  # of which one is enough
    printed = wait_for(schedule, r"Nothing new\('Nothing new: .{7}, in service, is what would be trained'")
    assert not any("Running stage" in line for line in printed)
    with project_lock.hold(WAITS_S, project_lock.NIGHT):
        prefect.start()
        wait_for(schedule, r"Skipped\('Skipped: the run with pid \d+ on \S+, since \S+ is at work'")

    # Nothing of it is in the tree, which has an edit; what it came to is in the registry and on a branch.
    (entry,) = history.read(registry())
    assert git("status", "--porcelain") == " M README.md\n"
    assert not Path("models/model.onnx").exists()
    branch = git("for-each-ref", "--format=%(refname:short)", "refs/heads/retraining/").strip()
    assert branch.endswith(entry.model[:7])
    assert git("show", "--name-only", "--format=%s", branch).split("\n\n") == [
        f"Promoted: model {entry.model[:7]} of a night [skip ci]",
        "dvc.lock\nreports/metrics.json\n",
    ]
    verdict = judgement.read_last(registry())
    assert verdict
    assert verdict[0].remarks == ["not trained, because it is not committed: README.md"]

    runs = prefect.runs()
    assert {run["state_type"] for run in runs} <= {"COMPLETED", "CRASHED"}
    states = sorted(run["state_name"] for run in runs if run["parent_task_run_id"] is None)
    assert states == ["Crashed", "Nothing new", "Promoted", "Skipped", "Superseded", "Superseded"]
    skipped = next(run for run in runs if run["state_name"] == "Skipped")
    assert {"digits", labels.checkout()} <= {*skipped["tags"]}
    keys = {artifact["key"] for artifact in prefect.ask("artifacts/filter").json()}
    assert keys == {labels.key(name) for name in ("metrics", "report", "verdict", "verdict-page")}, "of the first model"
    second = command(*RETRAINING, "--cron", CRON, cwd=project, check=False)
    assert second.returncode == 1
    assert f"schedule: there is one already in this project: the run with pid {schedule.pid} on " in second.stdout
    on_demand = prefect.deployment("on demand")
    assert (on_demand["parameters"]["epochs"], on_demand["parameters"]["seed"]) == (60, 0), "as committed"
    assert re.fullmatch(rf"on demand in {project.name}-[0-9a-f]{{6}}", on_demand["name"]), "one for each checkout"
    form = on_demand["parameter_openapi_schema"]["properties"]
    about = ("title", "description", "position", "default")
    bounds = {name: {key: field[key] for key in field.keys() - about} for name, field in form.items()}
    assert set(DATASETS) < set(bounds.pop("recipe")["enum"])
    assert bounds == {
        "path": {"type": "string", "minLength": 1},
        "image_size": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": 4096},
            "minItems": 2,
            "maxItems": 2,
        },
        "epochs": {"type": "integer", "minimum": 1, "maximum": 10_000},
        "batch_size": {"type": "integer", "minimum": 1, "maximum": 65_536},
        "learning_rate": {"type": "number", "exclusiveMinimum": 0, "maximum": 10},
        "seed": {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**32},
    }
    refused = prefect.start(epochs=0)
    assert (refused.status_code, "0 is less than the minimum of 1" in refused.text) == (409, True)

    overrides.write(["export.tolerance=1e-30", "train.epochs=1"])
    git("-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "-m", "strict", "params.yaml")
    wait_until(lambda: bool(prefect.deployment("on demand")["parameters"]["epochs"] == 1))
    prefect.start()
    printed = wait_for(schedule, r"Flow run .* Finished in state Failed$")
    assert sum("export: parity failed" in line for line in printed) == 1
    assert "log: .cache/retraining/kept/logs/export.log\n" in printed
    assert Path(".cache/retraining/kept/logs/export.log").exists()
    assert len(history.read(registry())) == 1

    worker = psutil.Process(json.loads(WORKER.read_text())["pid"])
    psutil.wait_procs(worker.children(), timeout=WAITS_S)  # so that all that is printed of the run that failed is there
    processes = psutil.Process(schedule.pid).children(recursive=True)
    assert processes
    schedule.send_signal(signal.SIGHUP)
    rest, _ = schedule.communicate(timeout=60)
    assert schedule.returncode == 128 + signal.SIGHUP
    assert rest.splitlines()[-1] == "schedule: ended; its runs, too"
    assert "Traceback" not in rest
    assert not left(processes)
    # On a machine with much to do SQLite refuses at once who has read before another has written. Prefect logs that and
    # asks again: a run by its client, the worker's sign of life with the next one. Nothing else is to be in the log.
    log = (project / ".cache/logs/server.log").read_text()
    records = re.split(r"^(?=\d\d:\d\d:\d\d\.\d+ \||[A-Z]+: )", log, flags=re.MULTILINE)
    log = "".join(record for record in records if "(sqlite3.OperationalError) database is locked" not in record)
    assert not re.search("error|exception|traceback", log, re.IGNORECASE)


@pytest.mark.nights
def test_in_the_morning_dvc_has_the_model_and_a_source_that_cannot_be_trained_on_blocks_the_next_night(
    project: Path, port: int, schedule: subprocess.Popen[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One test, because each run takes seconds to start."""
    monkeypatch.chdir(project)
    prefect = Prefect(port)
    wait_for(schedule, "Ctrl-C ends it")
    assert prefect.start().ok
    wait_for(schedule, r"Finished in state Promoted\(")
    (entry,) = history.read(registry())

    said = command("python", "-m", "dvc", "repro", cwd=project).stdout
    assert ("Stage 'train' is cached - skipping run" in said, "Running stage" in said) == (True, False)
    assert sha256(Path("models/model.onnx").read_bytes()).hexdigest() == entry.model
    assert prefect.start("promotion", version=entry.model[:7], reason="it is the same").ok
    wait_for(schedule, rf"Nothing new\('Nothing new: {entry.model[:7]} is in service'")

    # A source that is not there, and one that is half-written.
    prefect.start(recipe="folder")
    wait_for(schedule, "Finished in state Blocked")
    assert "there is nothing of that name" in why_blocked()
    for number in range(40):
        image = Path(f"data/inbox/{'cat' if number % 2 else 'dog'}/{number}.png")
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (64, 64), number).save(image)
        if number < 4:
            image.write_bytes(image.read_bytes()[:60])
    prefect.start(recipe="folder")
    wait_for(schedule, "Finished in state Blocked")
    assert "4 of 40 images (10.0%) cannot be read" in why_blocked()
    assert len(history.read(registry())) == 1


def why_blocked() -> str:
    """Return what the verdict of the last night says."""
    last = judgement.read_last(registry())
    assert last
    assert last[0].headline == "Blocked: no model was put into service"
    return "\n".join(last[0].reasons)


@pytest.mark.nights
def test_nothing_works_on_after_a_schedule_and_only_a_night_that_nobody_has_ended_is_said_to_have_crashed(
    project: Path, environment: dict[str, str], prefect_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One test, because each schedule takes seconds to start."""
    monkeypatch.chdir(project)
    port = free_port()
    prefect = Prefect(port)

    @contextmanager
    def at_work() -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
        """Yield a schedule that is at a night's stage, and all that it has started."""
        with scheduled(project, environment, prefect_home, port) as schedule:
            wait_for(schedule, "Ctrl-C ends it")
            assert prefect.start().ok
            wait_for(schedule, "[Ss]tage 'download'")
            yield schedule, psutil.Process(schedule.pid).children(recursive=True)

    with at_work() as (schedule, processes):
        os.kill(json.loads(server.SCHEDULE.read_text())["pid"], signal.SIGKILL)
        printed, _ = schedule.communicate(timeout=30)
        gone = r"schedule: Prefect's server at \S+ has gone; its runs are ended, too"
        assert (schedule.returncode, sum(bool(re.fullmatch(gone, line)) for line in printed.splitlines())) == (1, 1)
        assert not left(processes)

    with at_work() as (schedule, processes):
        assert prefect.states() == ["Crashed", "Running"]
        schedule.send_signal(signal.SIGINT)
        printed, _ = schedule.communicate(timeout=WAITS_S)
        assert (schedule.returncode, printed.splitlines()[-1]) == (130, "schedule: ended; its runs, too")
        assert not left(processes)

    with at_work() as (schedule, processes):
        assert prefect.states() == ["Crashed", "Cancelled", "Running"]
        schedule.kill()
        its_server = psutil.Process(json.loads(server.SCHEDULE.read_text())["pid"])
        psutil.wait_procs([one for one in processes if one != its_server], WAITS_S)
        assert left(processes) == [its_server]
        assert prefect.states() == ["Crashed", "Cancelled", "Crashed"]

    with scheduled(project, environment, prefect_home, port) as schedule:
        wait_for(schedule, "Ctrl-C ends it")
        assert left(processes) == [its_server], "it is taken over"
    assert not left(processes)


@pytest.mark.nights
def test_a_night_whose_server_is_started_anew_goes_on(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, home, port = copy_project(tmp_path / "project", QUICK_DIGITS), tmp_path / "home", free_port()
    monkeypatch.chdir(project)
    monkeypatch.setenv("PREFECT_HOME", str(home))
    prefect, record = Prefect(port), Path(".cache/somebody-elses-server.json")
    with ExitStack() as servers:

        def serve() -> server.Server:
            return servers.enter_context(server._started(record, port, server.FINAL))

        first = serve()
        with scheduled(project, environment, home, port, PREFECT_API_URL=prefect.api) as schedule:
            wait_for(schedule, "Ctrl-C ends it")
            assert prefect.start().ok
            wait_for(schedule, "[Ss]tage 'transform'")
            assert first.process
            first.process.kill()
            first.process.wait()
            serve()
            wait_for(schedule, r"Finished in state Promoted\(")
            assert prefect.states() == ["Promoted"]


@pytest.mark.nights
def test_a_schedule_whose_server_hangs_ends_in_one_sentence(
    project: Path, environment: dict[str, str], prefect_home: Path
) -> None:
    with scheduled(project, environment, prefect_home, free_port()) as schedule:
        wait_for(schedule, "Ctrl-C ends it")
        processes = psutil.Process(schedule.pid).children(recursive=True)
        os.kill(json.loads((project / server.SCHEDULE).read_text())["pid"], signal.SIGSTOP)
        printed, _ = schedule.communicate(timeout=60)
    assert schedule.returncode == 1
    assert re.fullmatch(r"\nschedule: Prefect's server at \S+ has gone; its runs are ended, too\n", printed)
    assert not left(processes)


@pytest.mark.parametrize("words", [("training",), ("retraining", "--cron", CRON)])
def test_a_home_of_prefects_that_cannot_be_made(project: Path, command: Command, words: tuple[str, ...]) -> None:
    (project / "file").touch()
    home = str(project / "file" / "home")
    answer = command("python", "-m", "flows", *words, cwd=project, check=False, PREFECT_HOME=home)
    assert answer.returncode == 1
    assert f"PREFECT_HOME={home} cannot be made (Not a directory): name a folder that can" in answer.stdout
    assert "Traceback" not in answer.stdout
