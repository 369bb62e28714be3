"""What a gate says of a model: one shape for all of them, so that whoever reads verdicts need not know the gates."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tasks.harness.records import Record, parse, read_json

Outcome = Literal["passed", "failed", "not run"]
Figure = str | int | float | None  # None: it could not be measured, or is not finite


@dataclass(frozen=True)
class Verdict:
    """A gate's verdict; the report of the gate, a JSON file, holds it under the key `verdict`."""

    gate: str
    outcome: Outcome
    reasons: list[str] = field(default_factory=list)  # why it is not passed
    figures: dict[str, Figure] = field(default_factory=dict)  # what was measured, by name, the most telling first

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"

    @classmethod
    def read(cls, path: Path) -> "Verdict | None":
        """Read the verdict in the report of a gate; None: it holds none.

        Raises:
            StageError: see `parse`.
        """
        contents = read_json(path)
        return parse(contents["verdict"], cls, path, at=("verdict",)) if "verdict" in contents else None


def report(gate: str, reasons: list[str], figures: dict[str, Figure], found: dict[str, Any]) -> dict[str, Any]:
    """Return the contents of a gate's report: its verdict, `passed`, and whatever else it has found."""
    verdict = Verdict(gate, "failed" if reasons else "passed", reasons, figures)
    return {"verdict": asdict(verdict), "passed": verdict.passed, **found}


def read_report(path: Path, kind: type[Record]) -> Record:
    """Read the report of a gate as the dataclass whose values `report` was given.

    Raises:
        StageError: see `parse`.
    """
    contents = read_json(path)
    verdict = parse(contents.pop("verdict", None), Verdict, path, at=("verdict",))
    contents.pop("passed", None)  # the verdict says so, too
    return parse(contents | {"reasons": verdict.reasons}, kind, path)
