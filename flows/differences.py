"""What differs between two runs: their parameters, and what they came to."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows import report


@dataclass(frozen=True)
class Difference:
    """A value that is not what it was; None: there is none."""

    what: str
    before: Any
    now: Any

    @property
    def change(self) -> float | None:
        """How much more it is now, where both are numbers."""
        numbers = [value for value in (self.before, self.now) if isinstance(value, int | float)]
        return None if len(numbers) < 2 or isinstance(self.before, bool) else numbers[1] - numbers[0]


def parameters(before: Path, now: Path) -> list[Difference]:
    """Compare params.yaml in two folders, key by key."""
    return _compare(*(dict(_flat(YAML(typ="safe").load(folder / "params.yaml"))) for folder in (before, now)))


def results(before: Path, now: Path) -> list[Difference]:
    """Compare the figures in reports/ of two folders, to six digits: the rest depends on the machine."""
    return _compare(_figures(before / "reports"), _figures(now / "reports"))


def images(folder: Path) -> str | None:
    """Return the hash of data/prepared that dvc.lock in `folder` has recorded."""
    lock = YAML(typ="safe").load(folder / "dvc.lock") or {}
    outs = lock.get("stages", {}).get("transform", {}).get("outs", [])
    return next((str(out["md5"]) for out in outs if out["path"] == "data/prepared"), None)


def _compare(before: dict[str, Any], now: dict[str, Any]) -> list[Difference]:
    names = list(dict.fromkeys([*now, *before]))
    return [Difference(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]


def _flat(document: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, document


def _figures(reports: Path) -> dict[str, Any]:
    data, metrics, parity = (report.read(reports / f"{name}.json") or {} for name in ("data", "metrics", "parity"))
    figures = {
        "dataset": data.get("dataset"),
        "accuracy": metrics.get("accuracy"),
        "loss": metrics.get("loss"),
        "calibration error": metrics.get("calibration_error"),
        "parity passed": parity.get("passed"),
        "largest logit error": parity.get("max_abs_error"),
    }
    for split in ("train", "validation", "test"):
        figures[f"{split} images"] = sum(row[split] for row in data["classes"]) if data else None
    figures |= {f"F1 of {name}": scores["f1"] for name, scores in metrics.get("per_class", {}).items()}
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in figures.items()}
