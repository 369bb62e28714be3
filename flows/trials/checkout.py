"""A checkout of a search's own, where one trial after the other runs through DVC, with the person's edits in it."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from flows.runtime import clone
from flows.runtime.clone import NOT_YET_TRACKED, Clone, git, listed
from tasks import dvc
from tasks.harness.code import PACKAGES, sha256
from tasks.harness.errors import StageError
from tasks.harness.section import PARAMS
from tasks.training.curve import CURVE
from tasks.training.record import Epochs, Validated

WHAT = "a search"
STAGES = ("download", "transform", "train")
METRICS = Path("reports/metrics.json")
LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class Checkout(Clone):
    """A place for one trial at a time."""

    checkpoints: Path
    lock: bytes  # dvc.lock before a trial; empty: there is none

    def write(self, params: str) -> None:
        """Make it as it was before any trial, but for params.yaml."""
        (self.folder / PARAMS).write_text(params, encoding="utf-8")
        if self.lock:
            (self.folder / LOCK).write_bytes(self.lock)
        (self.folder / CURVE).unlink(missing_ok=True)  # of the trial before

    def start(self, log: Path, stages: Iterable[str] = STAGES, force: bool = False) -> "subprocess.Popen[str]":
        """Have DVC bring the stages up to date; what it says goes to `log`. See tasks.dvc.stop."""
        with log.open("a", encoding="utf-8") as file:
            return dvc.start([*(["--force"] if force else []), *stages], self.folder, file)

    def curve(self) -> Iterator[tuple[int, float]]:
        """Yield the epochs of the training that runs and their accuracies of the validation images."""
        try:
            lines = (self.folder / CURVE).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        for row in csv.DictReader(lines):
            yield int(row["epoch"]), float(row["validation_accuracy"])

    def kept(self) -> Validated:
        """Return what the weights that were kept came to; see `Epochs.read`."""
        epochs = Epochs.read(self.folder)
        return epochs.best if epochs.kept == "best" else epochs.last

    def save(self, name: str, accuracy: float) -> str | None:
        """Make what is in it an experiment of the person's repository, which `dvc exp show` lists.

        Its reports/metrics.json has the accuracy of the validation images alone: no test image was looked at.

        Returns:
            Why that could not be done.
        """
        metrics = self.folder / METRICS
        metrics.unlink(missing_ok=True)
        metrics.write_text(json.dumps({"validation_accuracy": round(accuracy, 6)}) + "\n", encoding="utf-8")
        modules = [f"--include-untracked={new}" for new in listed(*NOT_YET_TRACKED, folder=self.folder)]
        words = ("-m", "dvc", "exp", "save", "--force", "--name", name, *modules, *STAGES)
        saved = subprocess.run((sys.executable, *words), cwd=self.folder, capture_output=True, text=True, check=False)
        if saved.returncode:
            return "; ".join(line for line in saved.stderr.splitlines() if line.startswith("ERROR: ")) or saved.stderr
        (ref,) = git(self.git, "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").split()
        try:
            self.bring(Path(), f"+{ref}:{ref}")
        except StageError as error:
            return str(error)
        return None

    def images(self) -> str:
        """Return the hash of data/raw that DVC has recorded."""
        stages = YAML(typ="safe").load(self.folder / LOCK)["stages"]
        return str(stages["download"]["outs"][0]["md5"])

    def code(self) -> dict[str, str]:
        """Return the hashes of all that decides, besides params.yaml and the images, what a trial comes to."""
        files = (path for package in PACKAGES for path in (self.folder / package).rglob("*.py"))
        return {str(path.relative_to(self.folder)): sha256(path) for path in sorted(files)}


def make(place: Path, cache: Path, own: Iterable[str]) -> Checkout:
    """Make a checkout at `place`; see `clone.make` and `clone.link`, which link the images and weights in `own`."""
    made = clone.make(place, cache, WHAT, edits=True)
    clone.link(own, Path(), made.folder, WHAT)
    (cache / "checkpoints").mkdir(exist_ok=True)
    lock = made.folder / LOCK
    return Checkout(made.git, made.folder, cache / "checkpoints", lock.read_bytes() if lock.exists() else b"")
