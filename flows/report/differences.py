"""What differs between two runs: their parameters, and what they came to."""

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.overrides import flatten
from flows.report import summary, verdicts
from flows.report.summary import Run
from flows.runtime import last_good
from tasks.harness.errors import StageError


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


@dataclass(frozen=True)
class Comparison:
    """With what the present state is compared, and what differs: nothing, where there is nothing to compare it with."""

    sentence: str
    compared: bool = False
    parameters: list[Difference] = field(default_factory=list)
    results: list[Difference] = field(default_factory=list)
    other_images: bool = False


def with_run_before(run: Run | None) -> Comparison:
    """Compare the present state, which is up to date, with the last complete run that differs from it.

    Args:
        run: the one that the present state is of, where that is known.
    """
    unchanged = run is not None and all(timing.outcome == "up to date" for timing in run.stages.values())
    said = ["Nothing has changed since the run before."] if unchanged else []
    now, before = Path(), last_good.before()
    if before is None:
        said = said or ["There is nothing to compare this with: no earlier run that differs is kept."]
        return Comparison(" ".join(said))
    try:
        new_results = results(before, now)
    except StageError:  # it says how to bring back what is in reports/
        said.append(f"{before} keeps an earlier run, but not as this version writes it: it is not compared.")
        return Comparison(" ".join(said))
    said.append("The comparison is with the last complete run that differs.")
    return Comparison(" ".join(said), True, parameters(before, now), new_results, images(before) != images(now))


def parameters(before: Path, now: Path) -> list[Difference]:
    """Compare params.yaml in two folders, key by key."""
    return _compare(*(dict(flatten(YAML(typ="safe").load(folder / "params.yaml"))) for folder in (before, now)))


def results(before: Path, now: Path) -> list[Difference]:
    """Compare the figures in reports/ of two folders, to six digits: the rest depends on the machine."""
    return _compare(_figures(before), _figures(now))


def images(folder: Path) -> str | None:
    """Return the hash of data/prepared that dvc.lock in `folder` has recorded."""
    lock = YAML(typ="safe").load(folder / "dvc.lock") or {}
    outs = lock.get("stages", {}).get("transform", {}).get("outs", [])
    return next((str(out["md5"]) for out in outs if out["path"] == "data/prepared"), None)


def _compare(before: dict[str, Any], now: dict[str, Any]) -> list[Difference]:
    names = list(dict.fromkeys([*now, *before]))
    return [Difference(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]


def _figures(folder: Path) -> dict[str, Any]:
    data, metrics, found = summary.read_data(folder), summary.read_evaluation(folder), verdicts.read(folder)
    figures: dict[str, Any] = {"dataset": data.dataset} if data else {}
    if metrics:
        metrics = summary.served(metrics, found)
        figures |= {"accuracy": metrics.accuracy, "loss": metrics.loss}
        figures["calibration error"] = metrics.calibration_error
    for verdict in found:
        figures[verdict.gate] = verdict.outcome
        measured = islice(verdict.figures.items(), verdicts.FIGURES_IN_A_LINE)
        figures |= {f"{verdict.gate}: {name}": value for name, value in measured}
    if data:
        figures |= {f"{split} images": count for split, count in summary.totals(data).items()}
    if metrics:
        figures |= {f"F1 of {name}": scores.f1 for name, scores in metrics.per_class.items()}
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in figures.items()}
