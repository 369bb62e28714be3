"""What a run came to: for the terminal, for the page, and for reports/run.json."""

import platform
import subprocess
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.report import verdicts
from tasks.dvc import StageRun
from tasks.evaluation.record import EVALUATION, Evaluation
from tasks.harness.code import sha256
from tasks.harness.records import read_json, write_json
from tasks.params import whole
from tasks.prepared import Card

DATA = Path("reports/data.json")
RUN = Path("reports/run.json")
LOCK = Path("dvc.lock")
WIDTH = 100  # of the terminal's table, whose second column begins at
INDENT = 11
# What a person is to look at. A class is weak beside the others, not by itself: of a hard dataset, nearly all would be.
# The calibration error is five times what those of equal models differ by on as few as 360 test images.
WEAK_RECALL = 0.5  # of the accuracy, at most
CALIBRATION_ERROR = 0.1
NAMED = 10  # classes in a remark


def read(path: Path) -> dict[str, Any] | None:
    """Read what a stage has left; None if it has not."""
    return read_json(path) if path.exists() else None


def evaluation(folder: Path = Path()) -> Evaluation | None:
    """Read what the model came to in the project at `folder`; None if nothing has measured it."""
    return Evaluation.read(folder) if (folder / EVALUATION).exists() else None


def summary(runs: Sequence[StageRun]) -> str:
    """Lay out the result of a run as a short table for a terminal."""
    metrics = Evaluation.read()
    rows = {
        "accuracy": f"{metrics.accuracy:.1%} of {Card.read().sizes['test']:,} test images",
        "loss": f"{metrics.loss:.4f}",
        **{verdict.gate: verdicts.line(verdict) for verdict in verdicts.read()},
        **{run.stage: f"{run.outcome:<10} {run.seconds:6.1f} s" for run in runs},
        "models": "models/model.onnx, models/model.pth",
        "reports": "reports/evaluation.json, reports/predictions.png; as a page: make report",
    }
    notes = [("look at", remark) for remark in remarks(read_json(DATA), metrics)]
    return "\n".join(_row(name, value) for name, value in (*rows.items(), *notes))


def _row(name: str, value: str) -> str:
    lines = textwrap.wrap(value, WIDTH - INDENT, break_long_words=False, break_on_hyphens=False)
    return f"{name:<{INDENT}}" + f"\n{' ' * INDENT}".join(lines)


def remarks(data: dict[str, Any], metrics: Evaluation) -> list[str]:
    """Say what a person should look at before the model goes live, though nothing of it fails a run."""
    found = {
        "test images that are among the training images, allowed by transform.on_leak": data["leaked"],
        "images under several classes": data["conflicts"],
        "images left out, because they cannot be read": len(data["unreadable"]),
        "nearly constant images": data["nearly_constant"],
    }
    classes = {
        "classes without images in some split": data["incomplete"],
        f"weak classes, recall at most {WEAK_RECALL:.0%} of the accuracy": _weak(metrics),
    }
    error = metrics.calibration_error
    return [
        *(f"{what}: {count:,}" for what, count in found.items() if count),
        *(f"{what}: {_listed(names)}" for what, names in classes.items() if names),
        *([f"calibration error above {CALIBRATION_ERROR:.0%}: {error:.1%}"] if error > CALIBRATION_ERROR else []),
    ]


def _weak(metrics: Evaluation) -> list[str]:
    """List the classes that the model leaves behind with their recall, the lowest first."""
    recalls = [(scores.recall, name) for name, scores in metrics.per_class.items() if scores.support]
    return [f"{name} {recall:.1%}" for recall, name in sorted(recalls) if recall <= WEAK_RECALL * metrics.accuracy]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def write_run(runs: Sequence[StageRun], started: datetime) -> None:
    """Write reports/run.json: what may differ between two runs that give the same results."""
    trained = next(run for run in runs if run.stage == "train")
    images = Card.read().sizes["train"] * whole.load().train.epochs
    write_json(
        RUN,
        {
            "started": started.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - started).total_seconds(), 2),
            "stages": {run.stage: {"outcome": run.outcome, "seconds": run.seconds} for run in runs},
            # Of the whole stage, its start and the validation included; None if it did not run.
            "training_images_per_s": round(images / trained.seconds) if trained.outcome == "ran" else None,
            "dvc_lock": lock_digest(),  # what the figures belong to
            "host": platform.node(),
            "git_revision": _git_revision(),
        },
    )


def lock_digest() -> str | None:
    """Hash dvc.lock, which names the inputs and outputs of all stages; None where there is none."""
    return f"sha256:{sha256(LOCK)}" if LOCK.exists() else None


def _git_revision() -> str | None:
    """Return the commit of the checkout, with `-dirty` if it was changed since; None outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # there is no git
        return None
    return answer.stdout.strip() or None
