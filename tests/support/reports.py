"""What a run leaves in data/prepared and reports/ so far as the flow reads it, made without a stage."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flows.report.verdicts import Gate
from tasks.data import checks
from tasks.evaluation.record import EVALUATION, Bin, ClassScores, Evaluation, Reliability, Temperature
from tasks.harness.records import write_json
from tasks.prepared import Card, SplitName
from tasks.training.record import USAGE, Usage

QUALITY = Gate("quality", "evaluate", Path("reports/quality.json"), "it is no worse than the one that serves")
FIGURES = {"provider": "CPU", "images": 1000, "largest logit error": 2.8612e-6, "ties": None}
DATA = checks.Report(dataset="pets", reasons=[])
SCORES = ClassScores(precision=0.5, recall=0.75, f1=1 / 3, support=1000)
METRICS = Evaluation(
    accuracy=0.8125,
    loss=0.51234,
    calibration_error=0.05,
    samples=2000,
    per_class={"cat": SCORES, "dog": SCORES},
    confusion_matrix=[[750, 250], [125, 875]],
    calibration=[Bin(confidence=0.7625, accuracy=0.8125, images=2000)],
    temperature=Temperature(0.9, 1000, None),
    calibrated=Reliability(0.5, 0.01, [Bin(confidence=0.8025, accuracy=0.8125, images=2000)]),
)


TOOK = Usage(images_per_s=4512.5, peak_memory_mb=812.0, peak_gpu_memory_mb=None)


def write_verdict(gate: str, outcome: str = "passed", **values: Any) -> None:
    """Write the report of a gate, with `values` of the verdict: its reasons and its figures."""
    verdict = {"gate": gate, "outcome": outcome, "reasons": [], "figures": {}} | values
    found = DATA.contents() if gate == "data" else {}
    write_json(Path(f"reports/{gate}.json"), found | {"verdict": verdict, "passed": outcome == "passed"})


def write_evaluation(folder: Path = Path(), **figures: Any) -> None:
    """Write what the model came to, with `figures` of its own; of other classes, it takes none for another."""
    if "per_class" in figures:
        classes = len(figures["per_class"])
        figures["confusion_matrix"] = [[0] * classes for _ in range(classes)]
    write_json(folder / EVALUATION, asdict(replace(METRICS, **figures)))


def write_reports() -> None:
    """Write what a complete run leaves, whose gates have passed."""
    for folder in ("data/prepared", "reports", ".cache"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    sizes: dict[SplitName, int] = {"train": 6000, "validation": 1000, "test": 2000}
    card = Card("pets", ["cat", "dog"], [28, 28, 1], [0.5], [0.5], sizes, {}, "stretch", {})
    card.write(Path("data/prepared"))
    write_evaluation()
    write_verdict("data", figures={"images": 9000})
    write_verdict("parity", figures=FIGURES)
    write_json(Path(USAGE), asdict(TOOK))
