"""What a run came to: for the terminal, for the page, and for reports/run.json."""

import platform
import subprocess
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from flows.report import verdicts
from tasks.data import checks
from tasks.dvc import Outcome, StageRun
from tasks.evaluation.record import EVALUATION, Evaluation
from tasks.gates.verdict import Verdict, read_report
from tasks.harness.code import sha256
from tasks.harness.errors import listed
from tasks.harness.records import read_record, write_json
from tasks.prepared import SPLITS, Card, SplitName
from tasks.training.record import USAGE, Usage

DATA = Path(checks.REPORT)
RUN = Path("reports/run.json")
LOCK = Path("dvc.lock")
WIDTH = 80  # of a terminal's table, whose second column begins at
INDENT = 11
# What a person is to look at. A class is weak beside the others, not by itself: of a hard dataset, nearly all would be.
# The calibration error is five times what those of equal models differ by on as few as 360 test images.
WEAK_RECALL = 0.5  # of the accuracy, at most
CALIBRATION_ERROR = 0.1
NAMED = 10  # classes in a remark


@dataclass(frozen=True)
class Timing:
    """What DVC made of a stage, and how long that took."""

    outcome: Outcome
    seconds: float


@dataclass(frozen=True)
class Run:
    """The contents of run.json: what may differ between two runs that give the same results."""

    started: str  # in UTC, as ISO 8601 has it
    seconds: float
    stages: dict[str, Timing]
    training: Usage | None  # None: it did not run
    dvc_lock: str | None  # what the figures belong to
    host: str
    git_revision: str | None


def read_data(folder: Path = Path()) -> checks.Report | None:
    """Read what the data checks found in the project at `folder`; None if they have left nothing."""
    return read_report(folder / DATA, checks.Report) if (folder / DATA).exists() else None


def read_evaluation(folder: Path = Path()) -> Evaluation | None:
    """Read what the model came to in the project at `folder`; None if nothing has measured it."""
    return Evaluation.read(folder) if (folder / EVALUATION).exists() else None


def temperature(found: Collection[Verdict]) -> float | None:
    """Return by what the exported model divides its logits, as its gate found; None: there is none."""
    figures = (verdict.figures.get("temperature") for verdict in found)
    return next((figure for figure in figures if isinstance(figure, int | float)), None)


def served(metrics: Evaluation, found: Collection[Verdict]) -> Evaluation:
    """Return what the model came to as it is served: calibrated where the exported model has the temperature."""
    return metrics.served(calibrated=temperature(found) == metrics.temperature.value != 1)


def totals(data: checks.Report) -> dict[SplitName, int]:
    """Count the images of each split."""
    return {split: sum(int(row[split]) for row in data.classes) for split in SPLITS}


def summary(runs: Sequence[StageRun]) -> str:
    """Lay out the result of a run as a short table for a terminal."""
    found = verdicts.read()
    int8 = [verdicts.read_int8(found)] if any(run.stage == "quantize" for run in runs) else []
    metrics = served(Evaluation.read(), found)
    rows = {
        "accuracy": f"{metrics.accuracy:.1%} of {Card.read().sizes['test']:,} test images",
        "loss": f"{metrics.loss:.4f}",
        **{verdict.gate: verdicts.line(verdict) for verdict in (*found, *int8)},
        **{run.stage: f"{run.outcome:<10} {run.seconds:6.1f} s" for run in runs},
        **({"training": str(took)} if (took := usage(runs)) else {}),
        "models": ", ".join(["models/model.onnx", "models/model.pth", *("models/model.int8.onnx" for _ in int8)]),
        "reports": "reports/evaluation.json, reports/predictions.png; a page: make report",
    }
    notes = [("look at", remark) for remark in remarks(read_report(DATA, checks.Report), metrics)]
    return "\n".join(row(name, value) for name, value in (*rows.items(), *notes))


def usage(runs: Sequence[StageRun]) -> Usage | None:
    """Read what the training of this run took; None where it did not run."""
    ran = any(run.stage == "train" and run.outcome == "ran" for run in runs)
    return read_record(Path(USAGE), Usage) if ran else None


def row(name: str, value: str) -> str:
    """Lay out a name and what is said of it, in as many lines as it takes."""
    lines = textwrap.wrap(value, WIDTH - INDENT, break_long_words=False, break_on_hyphens=False)
    return f"{name:<{INDENT}}" + f"\n{' ' * INDENT}".join(lines)


def remarks(data: checks.Report, metrics: Evaluation) -> list[str]:
    """Say what a person should look at before the model goes live, though nothing of it fails a run."""
    found = {
        "test images that are among the training images, allowed by transform.on_leak": data.leaked,
        "images under several classes": data.conflicts,
        "images left out, because they cannot be read": len(data.unreadable),
        "nearly constant images": data.nearly_constant,
    }
    classes = {
        "classes without images in some split": data.incomplete,
        f"weak classes, recall at most {WEAK_RECALL:.0%} of the accuracy": _weak(metrics),
    }
    error = metrics.calibration_error
    return [
        *(f"{what}: {count:,}" for what, count in found.items() if count),
        *(f"{what}: {listed(names, NAMED)}" for what, names in classes.items() if names),
        *([f"calibration error above {CALIBRATION_ERROR:.0%}: {error:.1%}"] if error > CALIBRATION_ERROR else []),
    ]


def _weak(metrics: Evaluation) -> list[str]:
    """List the classes that the model leaves behind with their recall, the lowest first."""
    recalls = [(scores.recall, name) for name, scores in metrics.per_class.items() if scores.support]
    return [f"{name} {recall:.1%}" for recall, name in sorted(recalls) if recall <= WEAK_RECALL * metrics.accuracy]


def write_run(runs: Sequence[StageRun], started: datetime) -> None:
    """Write reports/run.json: what may differ between two runs that give the same results."""
    record = Run(
        started=started.isoformat(timespec="seconds"),
        seconds=round((datetime.now(UTC) - started).total_seconds(), 2),
        stages={run.stage: Timing(run.outcome, run.seconds) for run in runs},
        training=usage(runs),
        dvc_lock=lock_digest(),
        host=platform.node(),
        git_revision=_git_revision(),
    )
    write_json(RUN, asdict(record))


def read_run() -> Run | None:
    """Read reports/run.json; None where no run was complete."""
    return read_record(RUN, Run, again="run make run") if RUN.exists() else None


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
