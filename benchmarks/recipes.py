"""Run recipes with several seeds, and keep what they came to in docs/recipes.md and in the recipes themselves.

Each run is `python -m tasks train` and `evaluate` as processes, on a clone of what is committed. A row of recipes.csv
is a run; those of recipes that have changed since are dropped.

Reads:  DATA_MIRROR (a folder with the archives, and groceries/ for recipes on own images), data/weights/, recipes/
Writes: benchmarks/recipes.csv, docs/recipes.md between the markers, recipes/NAME.yaml: what it reaches
Run:    python -m benchmarks.recipes [--untimed] NAME [SEED]...   (without a name: write the table anew from the rows)
        --untimed: other work shares the machine, and the time is not kept
"""

import csv
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from pathlib import Path
from statistics import mean, median

from pydantic import TypeAdapter

from benchmarks.__main__ import PYTHON, TRAIN, clone, machine, output, run
from flows import overrides, recipes
from tasks.data.datasets import DATASETS
from tasks.evaluation.record import Evaluation
from tasks.params import whole
from tasks.training import packages

ROWS = Path(__file__).with_suffix(".csv")
PAGE = Path("docs/recipes.md")
TABLE = re.compile(r"(?<=<!-- table -->\n).*(?=<!-- end -->)", re.DOTALL)
PHOTOGRAPHS = "groceries"  # what recipes on one's own images are run on: a folder of DATA_MIRROR
UNTIMED = "--untimed"
REACHES = re.compile(r"^  reaches:.*\n(?:    .*\n)*", re.MULTILINE)  # of a recipe's `about`
HEAD = """| recipe | accuracy | calibration error | n | trained in | on |
|---|---:|---:|---:|---:|---|"""


@dataclass(frozen=True)
class Result:
    """What a recipe came to once."""

    recipe: str
    values: str  # a digest of what the recipe sets
    seed: int
    accuracy: float  # of the test images
    calibration_error: float
    train_s: float | None  # of the stage as a process; None: not taken
    machine: str


def main(arguments: list[str]) -> None:
    write(read())
    timed = UNTIMED not in arguments
    if words := [word for word in arguments if word != UNTIMED]:
        name, *seeds = words
        for result in measure(name, [int(seed) for seed in seeds] or [0], timed):
            again = (result.recipe, result.seed)
            write([*(other for other in read() if (other.recipe, other.seed) != again), result])


def digest(recipe: str) -> str:
    """Hash what a recipe sets, so that a result is known to be of the recipe as it is now."""
    values = recipes.changes(recipe) if recipe in recipes.known() else []
    return hashlib.sha256("\n".join(values).encode()).hexdigest()[:12]


def read() -> list[Result]:
    """Read the rows of the recipes as they are now."""
    if not ROWS.exists():
        return []
    with ROWS.open(newline="", encoding="utf-8") as file:
        rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
    results = [TypeAdapter(Result).validate_python(row) for row in rows]
    return [result for result in results if result.values == digest(result.recipe)]


def measure(name: str, seeds: list[int], timed: bool) -> Iterator[Result]:
    """Run a recipe once with each seed, the data prepared once."""
    os.environ["PATH"] = os.pathsep.join((str(Path(PYTHON).parent), os.environ["PATH"]))
    if not (mirror := os.environ.get("DATA_MIRROR")):
        sys.exit("recipes: DATA_MIRROR has to name a folder that holds the data")
    os.environ["DATA_MIRROR"] = str(Path(mirror).resolve())
    with tempfile.TemporaryDirectory() as folder:
        project = clone(Path(folder) / "project", name)
        with chdir(project):
            if DATASETS[whole.load().download.dataset].format == "files":
                overrides.write([f"download.path={os.environ['DATA_MIRROR']}/{PHOTOGRAPHS}"])
        if packages.FOLDER.exists():
            (project / packages.FOLDER).symlink_to(packages.FOLDER.resolve())
        output(project, PYTHON, "-m", "dvc", "repro", "transform")
        params = project / "params.yaml"
        text = params.read_text(encoding="utf-8")
        for seed in seeds:
            params.write_text(overrides.apply(text, [f"train.seed={seed}"])[0], encoding="utf-8")
            seconds = run(project, *TRAIN)
            output(project, PYTHON, "-m", "tasks", "evaluate")
            test = Evaluation.read(project)
            print(f"{name}, seed {seed}: {test.accuracy:.2%} in {seconds:.0f} s", flush=True)
            train_s = round(seconds, 1) if timed else None
            yield Result(name, digest(name), seed, test.accuracy, test.calibration_error, train_s, machine())


def write(results: list[Result]) -> None:
    """Keep the rows, and write table and recipes from them."""
    results = sorted(results, key=lambda result: (result.recipe, result.seed))
    with ROWS.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, [field.name for field in fields(Result)], lineterminator="\n")
        rows.writeheader()
        rows.writerows(asdict(result) for result in results)
    names = sorted({result.recipe for result in results})
    summaries = {name: Summary([result for result in results if result.recipe == name]) for name in names}
    table = "\n".join((HEAD, *(summary.row(name) for name, summary in summaries.items()), ""))
    PAGE.write_text(TABLE.sub(lambda _: table, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for name, summary in summaries.items():
        path = recipes.FOLDER / f"{name}.yaml"
        path.write_text(rewritten(path.read_text(encoding="utf-8"), summary), encoding="utf-8")


def rewritten(recipe: str, summary: "Summary") -> str:
    """Write into the text of a recipe what it reaches."""
    return REACHES.sub(lambda _: summary.reaches(), recipe)


@dataclass(frozen=True)
class Summary:
    """What the runs of a recipe came to."""

    results: list[Result]

    @property
    def accuracy(self) -> str:
        found = [result.accuracy for result in self.results]
        spread = f" ({min(found):.1%} to {max(found):.1%})" if len(found) > 1 else ""
        return f"{mean(found):.2%}{spread}"

    @property
    def calibration_error(self) -> str:
        return f"{mean(result.calibration_error for result in self.results):.1%}"

    @property
    def train_s(self) -> int | None:
        times = [result.train_s for result in self.results if result.train_s is not None]
        return round(median(times)) if times else None

    @property
    def time(self) -> str:
        return "-" if self.train_s is None else str(timedelta(seconds=self.train_s))

    @property
    def machines(self) -> str:
        return "; ".join(sorted({result.machine for result in self.results}))

    def row(self, name: str) -> str:
        cells = (name, self.accuracy, self.calibration_error, str(len(self.results)), self.time, self.machines)
        return f"| {' | '.join(cells)} |"

    def reaches(self) -> str:
        """Write what it came to as `reaches` of the recipe's `about`."""
        found = [result.accuracy for result in self.results]
        values = {
            "accuracy": f"[{min(found):.4f}, {max(found):.4f}]",
            "n": len(found),
            "hardware": json.dumps(self.machines),
            "train_s": "null" if self.train_s is None else self.train_s,
        }
        return "".join(("  reaches:\n", *(f"    {name}: {value}\n" for name, value in values.items())))


if __name__ == "__main__":
    main(sys.argv[1:])
