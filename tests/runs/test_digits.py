"""The whole pipeline through the flow: `make run` without a network falls back to digits."""

import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows import overrides, recipes
from flows.run import NOTICE
from flows.runtime import labels
from tests.support.project import NO_MIRROR, Command, change, copy_project

STAGES = ("download", "transform", "train", "evaluate", "export")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, for commands that reach no mirror, as if there were no network."""
    return copy_project(tmp_path_factory.mktemp("flow"), ["flow.download_retries=0"])


@pytest.fixture(scope="module")
def first(project: Path, command: Command) -> str:
    """What the first `make run` prints."""
    return command("python", "-m", "flows", "run", cwd=project, **NO_MIRROR).stdout


def outcomes(printed: str) -> list[str]:
    """Read from the table at the end what became of each stage."""
    return [
        line[10:].rpartition("  ")[0].strip() for line in printed.splitlines()[-16:] if line.split(" ")[0] in STAGES
    ]


def test_first_and_last_line_say_that_it_is_digits_and_how_to_get_back(first: str) -> None:
    lines = first.splitlines()
    assert lines[0] == lines[-1] == NOTICE
    assert NOTICE.startswith("digits, because no mirror answered")
    assert "git restore params.yaml dvc.lock reports" in NOTICE


def test_digits_reach_nine_of_ten(first: str, project: Path) -> None:
    evaluation = json.loads((project / "reports/evaluation.json").read_text())
    assert evaluation["accuracy"] >= 0.90
    assert f"accuracy   {evaluation['accuracy']:.1%} of 359 test images" in first


def test_the_table_at_the_end(first: str, project: Path) -> None:
    assert outcomes(first) == ["ran"] * 5
    parity = json.loads((project / "reports/parity.json").read_text())
    error = f"largest logit error {parity['max_abs_error']:.4g}, tolerance 0.0001, ties 0"
    assert f" parity passed: provider {parity['provider']}, images 359, {error} " in " ".join(first.split())
    assert "\ndata       passed: images 1,797, test images among the training images " in first
    assert "models     models/model.onnx, models/model.pth" in first
    for name in ("models/model.onnx", "models/model.pth", "reports/predictions.png"):
        assert (project / name).is_file()


def test_the_stages_lines_arrive_in_prefects_log_and_no_traceback(first: str) -> None:
    assert "Task run 'download' - digits.csv.gz: 57,523 bytes, checksum verified" in first
    assert "Task run 'train' - Using " in first
    assert "Task run 'train' - loss: " in first
    assert "Task run 'export' - Parity passed" in first
    assert "Traceback" not in first
    assert "database is locked" not in first


def test_run_json_tells_what_may_differ_between_runs(first: str, project: Path) -> None:
    run = json.loads((project / "reports/run.json").read_text())
    assert list(run["stages"]) == list(STAGES)
    assert all(stage["seconds"] > 0 for stage in run["stages"].values())
    assert all(run["training"][name] > 0 for name in ("images_per_s", "peak_memory_mb"))
    head = subprocess.run(("git", "rev-parse", "HEAD"), cwd=project, capture_output=True, text=True, check=True)
    assert run["git_revision"] == f"{head.stdout.strip()}-dirty"


def test_params_yaml_holds_the_fallback_and_its_comments(first: str, project: Path) -> None:
    committed = subprocess.run(
        ("git", "show", "HEAD:params.yaml"), cwd=project, capture_output=True, text=True, check=True
    )
    text = (project / "params.yaml").read_text()
    assert text == overrides.apply(committed.stdout, recipes.changes("digits"))[0]
    assert text.count("#") == committed.stdout.count("#")


def test_dvc_status_is_clean(first: str, project: Path, command: Command) -> None:
    assert command("dvc", "status", cwd=project).stdout == "Data and pipelines are up to date.\n"


def test_a_run_changes_no_file_of_gits_but_the_parameters_the_lock_and_the_metrics(
    first: str, project: Path, command: Command
) -> None:
    changed = command("git", "status", "--porcelain", cwd=project).stdout.splitlines()
    assert changed == [" M dvc.lock", " M params.yaml", " M reports/metrics.json"]


def test_the_report_is_of_this_run_until_something_changes(first: str, project: Path, command: Command) -> None:
    printed = command("python", "-m", "flows", "report", cwd=project).stdout
    verified = "Verified: the data passed their checks; the ONNX model predicts what the .pth model predicts"
    assert printed.startswith(f"{verified}\nreports/report.html\n")
    page = (project / "reports/report.html").read_text()
    run = json.loads((project / "reports/run.json").read_text())
    assert run["host"] in page
    assert f"{run['stages']['train']['seconds']:.1f}</td>" in page
    before = (project / "params.yaml").read_bytes()
    change(project, "train.seed=1")
    printed = command("python", "-m", "flows", "report", cwd=project).stdout
    assert printed.startswith("Out of date: train and what follows it would run again\n")
    (project / "params.yaml").write_bytes(before)


def test_the_next_run_says_so_again_and_changes_nothing(first: str, project: Path, command: Command) -> None:
    lock = (project / "dvc.lock").read_bytes()
    again = command("python", "-m", "flows", "run", cwd=project, **NO_MIRROR).stdout
    lines = again.splitlines()
    assert lines[0] == lines[-1] == NOTICE
    assert outcomes(again) == ["up to date"] * 5
    assert (project / "dvc.lock").read_bytes() == lock


def test_the_model_predicts_a_digit(first: str, project: Path, command: Command) -> None:
    images = np.load(project / "data/prepared/test_images.npy")
    labels = np.load(project / "data/prepared/test_labels.npy")
    names = []
    for index in range(20):
        names.append(f"digit{index}.png")
        Image.fromarray(images[index, ..., 0]).save(project / names[-1])
    printed = command("python", "-m", "serving.predict", *names, cwd=project).stdout.splitlines()
    for name in names:
        (project / name).unlink()
    right = [line.startswith(f"{name}: {label} ") for line, name, label in zip(printed, names, labels, strict=False)]
    assert len(printed) == 20
    assert sum(right) >= 16


def test_a_refused_value_ends_the_flow_before_it_begins(first: str, project: Path, command: Command) -> None:
    before = (project / "params.yaml").read_bytes()
    answer = command("python", "-m", "flows", "training", "-S", "train.epochs=0", cwd=project, check=False)
    assert answer.returncode == 1
    assert answer.stdout == (
        "\ntraining failed. params.yaml with train.epochs=0 is refused:\n"
        "  train.epochs = 0: input should be greater than or equal to 1\n"
    )
    assert (project / "params.yaml").read_bytes() == before


def test_failed_parity_withholds_the_model_and_dvc_brings_the_last_good_one_back(
    first: str, project: Path, command: Command
) -> None:
    model = (project / "models/model.onnx").read_bytes()
    # The probabilities are compared with a softmax in float64, from which some differ in any case.
    answer = command("python", "-m", "flows", "training", "-S", "export.tolerance=1e-30", cwd=project, check=False)
    assert answer.returncode == 1
    reason, log, way_back = answer.stdout.splitlines()[-3:]
    assert reason.startswith("training failed. export: parity failed: ")
    assert "a probability differs by" in reason
    assert "export.tolerance is 1e-30" in reason
    assert reason.endswith("it is back with: dvc checkout models/model.onnx models/labels.txt")
    assert log == "log: .cache/logs/export.log"
    assert "export: parity failed: " in (project / ".cache/logs/export.log").read_text()
    assert answer.stdout.count("export: parity failed") == 1, "at the end"
    assert "Traceback" not in answer.stdout
    assert not (project / "models/model.onnx").exists()
    assert not json.loads((project / "reports/parity.json").read_text())["passed"]

    sentence, _, commands = way_back.partition(": ")
    assert sentence == "back to the last complete run"
    command("sh", "-c", commands, cwd=project)
    assert (project / "models/model.onnx").read_bytes() == model
    assert json.loads((project / "reports/parity.json").read_text())["passed"]
    printed = command("python", "-m", "flows", "training", cwd=project).stdout
    assert outcomes(printed) == ["up to date"] * 5
    # Back to the values of the first run: DVC restores what it knows instead of running it again.
    command("git", "restore", "params.yaml", "dvc.lock", "reports", cwd=project)
    printed = command("python", "-m", "flows", "run", cwd=project, **NO_MIRROR).stdout
    assert outcomes(printed) == ["restored"] * 5
    assert (project / "models/model.onnx").read_bytes() == model


@pytest.mark.parametrize(
    "words",
    [("run", "--dataset", "fashion_mnist"), ("training", "-S", "download.dataset=fashion_mnist")],
    ids=["make run DATASET=", "training"],
)
def test_whoever_asks_for_a_dataset_gets_it_or_an_error(
    project: Path, command: Command, words: tuple[str, ...]
) -> None:
    answer = command("python", "-m", "flows", *words, cwd=project, check=False, **NO_MIRROR)
    assert answer.returncode == 1
    assert "training failed. download: no source delivered train-images-idx3-ubyte.gz" in answer.stdout
    assert "\n  http://127.0.0.1:9/fashion_mnist/: " in answer.stdout
    assert "Connection refused" in answer.stdout
    assert "make run DATASET=digits" in answer.stdout
    assert "because no mirror answered" not in answer.stdout
    assert "Traceback" not in answer.stdout


def test_the_last_line_says_so_of_a_run_that_failed_too(
    first: str, project: Path, tmp_path: Path, command: Command
) -> None:
    copy = copy_project(tmp_path, ["transform.test_fraction=0.9999"])  # nothing is left to train on
    failed = command("python", "-m", "flows", "run", cwd=copy, check=False, **NO_MIRROR)
    assert failed.returncode == 1
    assert failed.stdout.startswith(NOTICE)
    assert f"\n{NOTICE}\n" in failed.stdout[-1000:]


def test_prefects_ui_shows_the_flow_run_with_its_name_its_tags_and_its_artifacts(
    first: str, project: Path, prefect_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Prefect's database, as its UI reads it."""
    monkeypatch.chdir(project)
    keys = labels.key("metrics"), labels.key("report")
    with closing(sqlite3.connect(prefect_home / "prefect.db")) as database:
        artifacts = dict(database.execute("select key, data from artifact where key in (?, ?)", keys))
        types = dict(database.execute("select key, type from artifact where key in (?, ?)", keys))
        runs = database.execute("select name, tags from flow_run order by start_time").fetchall()
    assert types == dict(zip(keys, ("table", "markdown"), strict=True))
    assert [row["class"] for row in json.loads(json.loads(artifacts[keys[0]]))] == list("0123456789")
    assert "# Verified: " in artifacts[keys[1]]
    assert "- **parity** passed: provider " in artifacts[keys[1]]
    assert (f"digits in {project.name}", json.dumps(["digits", labels.checkout()])) in runs
