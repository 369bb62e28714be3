"""What the gates say: a row for each, in the order in which a run comes to them."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tasks.gates.verdict import Figure, Verdict

FIGURES_IN_A_LINE = 5


@dataclass(frozen=True)
class Gate:
    """Where a gate's verdict is found."""

    name: str
    stage: str  # that it belongs to
    report: Path  # the JSON file that holds the verdict under the key `verdict`
    proves: str  # what is known of a model that has passed


GATES = (
    Gate("data", "transform", Path("reports/data.json"), "the data passed their checks"),
    Gate("parity", "export", Path("reports/parity.json"), "the ONNX model predicts what the .pth model predicts"),
)
INT8 = Gate("int8", "quantize", Path("reports/int8.json"), "the 8-bit model knows the test images nearly as well")


def read(folder: Path = Path(), ended: Collection[str] | None = None) -> list[Verdict]:
    """Read the verdict of every gate in the project at `folder`.

    What follows a gate that is not passed has not run: a report that is there nevertheless is of an earlier run.

    Args:
        ended: the stages that this run has completed, where it is not known to have completed all.

    Raises:
        StageError: a report is not what a gate wrote.
    """
    verdicts: list[Verdict] = []
    for gate in GATES:
        verdict = _read(gate, folder) if all(earlier.passed for earlier in verdicts) else not_run(gate)
        if ended is not None and gate.stage not in ended and verdict.passed:
            verdict = not_run(gate)
        verdicts.append(verdict)
    return verdicts


def read_int8(earlier: Collection[Verdict]) -> Verdict:
    """Read the verdict of the stage quantize, which there is only where params.yaml asks for it.

    Args:
        earlier: of the gates before it.
    """
    return _read(INT8, Path()) if all(verdict.passed for verdict in earlier) else not_run(INT8)


def not_run(gate: Gate) -> Verdict:
    return Verdict(gate.name, "not run", [f"the stage {gate.stage} has not come to it"])


def _read(gate: Gate, folder: Path) -> Verdict:
    path = folder / gate.report
    if not path.exists():
        return not_run(gate)
    return Verdict.read(path) or Verdict(
        gate.name, "not run", [f"{path} holds no verdict: an earlier version of this project wrote it"]
    )


def headline(verdicts: Collection[Verdict], remarks: Collection[str] = ()) -> str:
    """Say in one line what is proven of the model, or why it may not go live.

    Args:
        remarks: what a person is to look at before it does.
    """
    for verdict in verdicts:
        if verdict.outcome == "failed":
            return f"Withheld, {verdict.gate} failed: {_why(verdict)}"
        if not verdict.passed:
            return f"Not verified yet: {verdict.gate} has not run"
    proven = "; ".join(gate.proves for gate in GATES)
    if remarks:
        what = "1 remark" if len(remarks) == 1 else f"{len(remarks)} remarks"
        return f"Look at {what} before it goes live. Proven: {proven}"
    return f"Verified: {proven}"


def line(verdict: Verdict) -> str:
    """Say in one line what a gate found."""
    if verdict.passed:
        figures = islice(verdict.figures.items(), FIGURES_IN_A_LINE)
        return f"passed: {', '.join(f'{name} {figure(value)}' for name, value in figures)}"
    return f"{verdict.outcome}: {_why(verdict)}"


def _why(verdict: Verdict) -> str:
    """Join the reasons, of each its first line: what is listed below it is in the report of the gate."""
    return "; ".join(reason.partition("\n")[0] for reason in verdict.reasons)


def figure(value: Figure) -> str:
    """Write a figure: a number with four digits, a missing one as a dash."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{value}"
