"""The whole pipeline through DVC's own commands: the same bytes as through the flow, and what a DVC user expects."""

import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.project import QUICK_DIGITS, Command, change, copy_project

WIDTH = 120  # of a terminal


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_project(tmp_path_factory.mktemp("dvc"))
    change(folder, *QUICK_DIGITS, "train.epochs=10")
    return folder


@pytest.fixture(scope="module")
def lock(project: Path, command: Command) -> bytes:
    """dvc.lock after the first `dvc repro`."""
    printed = command("dvc", "repro", cwd=project).stdout
    assert printed.count("Running stage '") == 5
    return (project / "dvc.lock").read_bytes()


def test_the_same_bytes_whoever_starts_the_stages(project: Path, lock: bytes, tmp_path: Path, command: Command) -> None:
    assert "didn't change, skipping" in command("dvc", "repro", cwd=project).stdout
    assert (project / "dvc.lock").read_bytes() == lock
    assert command("dvc", "repro", "-f", cwd=project).stdout.count("Running stage '") == 5
    assert (project / "dvc.lock").read_bytes() == lock

    elsewhere = copy_project(tmp_path / "elsewhere")
    (elsewhere / "params.yaml").write_bytes((project / "params.yaml").read_bytes())
    for outcome in ("ran", "up to date"):
        printed = command("python", "-m", "flows", "training", cwd=elsewhere).stdout
        assert printed.count(f" {outcome} ") >= 5
        assert (elsewhere / "dvc.lock").read_bytes() == lock


def test_status_is_clean(project: Path, lock: bytes, command: Command) -> None:
    assert command("dvc", "status", cwd=project).stdout == "Data and pipelines are up to date.\n"


def test_dag_shows_the_chain(project: Path, lock: bytes, command: Command) -> None:
    printed = command("dvc", "dag", "--dot", cwd=project).stdout
    for edge in ('download" -> "transform', 'transform" -> "train', 'train" -> "evaluate', 'evaluate" -> "export'):
        assert f'"{edge}"' in printed


def test_the_metrics_fit_a_terminal_and_are_numbers_that_a_person_reads(
    project: Path, lock: bytes, command: Command
) -> None:
    shown = json.loads(command("dvc", "metrics", "show", "--json", cwd=project).stdout)[""]["data"]
    assert list(shown) == ["reports/metrics.json"]
    metrics = shown["reports/metrics.json"]["data"]
    assert set(metrics) == {"accuracy", "loss", "calibration_error", "lowest_recall", "logit_error_below"}
    assert metrics["accuracy"] > 0.8
    table = command("dvc", "metrics", "show", cwd=project).stdout.splitlines()
    difference = command("dvc", "metrics", "diff", "--all", cwd=project).stdout
    assert all(len(line) <= WIDTH for line in (*table, *difference.splitlines()))
    assert re.search(r"logit_error_below +\S+ +1e-0\d", difference), "rounded, it would be 0.0"


def test_a_stage_that_failed_leaves_its_report_and_is_restored_when_the_reason_is_gone(
    project: Path, lock: bytes, command: Command
) -> None:
    report, whole = project / "reports/data.json", (project / "params.yaml").read_bytes()
    passed = report.read_bytes()
    change(project, "transform.test_fraction=0.9999")  # nothing is left to train on
    for _ in range(2):
        answer = command("dvc", "repro", cwd=project, check=False)
        assert "transform: the train split would be empty" in answer.stdout
        assert json.loads(report.read_text())["passed"] is False
    (project / "params.yaml").write_bytes(whole)
    assert "Stage 'transform' is cached" in command("dvc", "repro", cwd=project).stdout
    assert report.read_bytes() == passed
    assert (project / "dvc.lock").read_bytes() == lock


def test_artifacts_are_known(project: Path, lock: bytes) -> None:
    artifacts = YAML(typ="safe").load((project / "dvc.yaml").read_text())["artifacts"]
    assert {entry["path"] for entry in artifacts.values()} == {"models/model.pth", "models/model.onnx"}


def test_plots_show_curves_confusion_matrix_and_pictures(project: Path, lock: bytes, command: Command) -> None:
    printed = command("dvc", "plots", "show", "--json", cwd=project).stdout
    plots = json.loads(printed)["data"]
    assert set(plots) == {
        "Loss",
        "Confusion matrix",
        "reports/learning_curve.csv",
        "reports/samples.png",
        "reports/predictions.png",
        "reports/suspects.png",
    }
    (loss,) = plots["Loss"]
    rows = (
        json.loads(loss["content"])["data"]["values"]
        if isinstance(loss["content"], str)
        else loss["content"]["data"]["values"]
    )
    assert len([row for row in rows if row["field"] == "validation_loss"]) == 10
    assert "error" not in json.loads(printed)


def test_params_diff_names_what_was_changed(project: Path, lock: bytes, command: Command) -> None:
    changed = json.loads(command("dvc", "params", "diff", "--json", cwd=project).stdout)["params.yaml"]
    assert set(changed) == {change.split("=")[0] for change in QUICK_DIGITS}


def test_what_is_pushed_can_be_pulled_by_a_clone(project: Path, lock: bytes, tmp_path: Path, command: Command) -> None:
    command("dvc", "remote", "add", "--default", "folder", str(tmp_path / "remote"), cwd=project)
    command("dvc", "push", cwd=project)
    clone = copy_project(tmp_path / "clone")
    for name in ("params.yaml", "dvc.lock", ".dvc/config", "reports/metrics.json"):
        (clone / name).write_bytes((project / name).read_bytes())
    command("dvc", "pull", cwd=clone)
    reports = [f"reports/{path.name}" for path in (project / "reports").iterdir()]
    assert {"reports/data.json", "reports/evaluation.json", "reports/parity.json"} < set(reports)
    for name in ("models/model.onnx", "models/model.pth", "data/prepared/train_images.npy", *reports):
        assert (clone / name).read_bytes() == (project / name).read_bytes()
    assert command("dvc", "status", cwd=clone).stdout == "Data and pipelines are up to date.\n"


def test_an_experiment_runs_with_a_changed_parameter(project: Path, lock: bytes, command: Command) -> None:
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.com")
    command(*git, "commit", "-qam", "digits", cwd=project)
    shipped = (project / "params.yaml").read_text()
    printed = command("dvc", "exp", "run", "-S", "train.epochs=1", cwd=project).stdout
    assert "Ran experiment" in printed
    # The same file as `python -m flows training -S train.epochs=1` would have written, layout aside.
    assert "  epochs: 1\n" in (project / "params.yaml").read_text()
    assert (project / "params.yaml").read_text().count("#") == shipped.count("#")
    assert (project / "reports/learning_curve.csv").read_text().count("\n") == 2
    assert command("dvc", "status", cwd=project).stdout == "Data and pipelines are up to date.\n"

    # On a terminal that is wide enough for anything. Deps, of which DVC shows the hashes, have a slash in their names.
    words = ("dvc", "exp", "show", "--no-pager", "--only-changed", "--drop", ".*/")
    shown = command(*words, cwd=project, COLUMNS="1000").stdout
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= WIDTH
    header = next(line for line in shown.splitlines() if "Experiment" in line).split()
    assert header[:2] == ["Experiment", "Created"]
    assert set(header[2:]) <= {
        "accuracy",
        "loss",
        "calibration_error",
        "lowest_recall",
        "logit_error_below",
        "train.epochs",
    }
