"""A checkout of a search's own, where one trial after the other runs through DVC, and the person's tree stays as it is.

It is a clone that borrows git's objects and shares DVC's cache, so that what was downloaded and prepared once is linked
from there. It holds what git tracks as it is in the person's tree, edits that are not committed included, and links to
images and weights that git does not track.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from tasks import dvc
from tasks.harness.code import PACKAGES, sha256
from tasks.harness.errors import StageError, shown
from tasks.harness.section import PARAMS
from tasks.training.curve import CURVE
from tasks.training.record import Epochs, Validated

STAGES = ("download", "transform", "train")
NOT_YET_TRACKED = ("--others", "--exclude-standard", "--", *PACKAGES)  # modules that a trial may be about
METRICS = Path("reports/metrics.json")
LOCK = Path("dvc.lock")
GONE_WITHIN_S = 15.0  # what a search that was killed has left running


@dataclass(frozen=True)
class Checkout:
    """A place for one trial at a time; `git` is the root of the clone, `folder` the project in it."""

    git: Path
    folder: Path
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
        modules = [f"--include-untracked={new}" for new in _listed(*NOT_YET_TRACKED, folder=self.folder)]
        words = ("-m", "dvc", "exp", "save", "--force", "--name", name, *modules, *STAGES)
        saved = subprocess.run((sys.executable, *words), cwd=self.folder, capture_output=True, text=True, check=False)
        if saved.returncode:
            return "; ".join(line for line in saved.stderr.splitlines() if line.startswith("ERROR: ")) or saved.stderr
        (ref,) = git(self.git, "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").split()
        try:
            quietly = ("--quiet", "--no-tags", "--no-write-fetch-head")
            git(Path(), "fetch", *quietly, str(self.git.absolute()), f"+{ref}:{ref}")
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
    """Make a checkout at `place`, where one of a search before may be.

    Args:
        cache: a folder for the checkpoints of its trainings, which outlives it.
        own: paths of images and weights, which git need not track.

    Raises:
        StageError: there is no commit, or a path leads out of the project.
    """
    inside = [path for path in map(Path, own) if not path.is_absolute()]
    for path in inside:
        if ".." in Path(os.path.normpath(path)).parts:
            raise StageError(
                f"{shown(str(path))} leads out of the project: a search needs it from /, as {path.resolve()}"
            )
    head, prefix = revision()
    remove(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    common = git(Path(), "rev-parse", "--path-format=absolute", "--git-common-dir").rstrip("\n")
    options = ("--quiet", "--shared", "--no-checkout", "--template=", "-c", "core.hooksPath=/dev/null")
    git(Path(), "clone", *options, "--", common, str(place))
    git(place, "checkout", "--quiet", "--detach", head)
    for key, otherwise in (("user.name", "make search"), ("user.email", "search@localhost")):
        git(place, "config", key, git(Path(), "config", "--default", otherwise, key).rstrip("\n"))
    git(place, "config", "commit.gpgsign", "false")  # nobody is there to enter a passphrase
    folder = place / prefix
    _copy(folder)
    for path in inside:
        _link(path, folder)
    (cache / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / ".cache").symlink_to(cache.absolute())
    _configure_dvc(folder)
    lock = folder / LOCK
    return Checkout(place, folder, cache / "checkpoints", lock.read_bytes() if lock.exists() else b"")


def remove(folder: Path) -> None:
    """Remove a folder, in which something that was killed may be writing its last; links are not followed."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=time.monotonic() < deadline)
        if folder.exists():
            time.sleep(0.1)


def revision() -> tuple[str, str]:
    """Return the commit that the person's tree is at, and where in the repository the project is.

    Raises:
        StageError: there is no git, or no commit.
    """
    try:
        head, prefix = (
            git(Path(), "rev-parse", *word).rstrip("\n") for word in (["--verify", "HEAD"], ["--show-prefix"])
        )
    except (StageError, FileNotFoundError):
        raise StageError(
            "a search needs the project in a git repository with a commit: git init, git add, git commit"
        ) from None
    return head, prefix


def git(folder: Path, *words: str) -> str:
    """Run git in a folder, and return what it prints.

    Raises:
        StageError: it failed.
    """
    command = ("git", "-c", "gc.auto=0", "-c", "maintenance.auto=false", *words)
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="surrogateescape", check=False)
    if answer.returncode:
        raise StageError(f"git {words[0]} failed: {answer.stderr.strip()}")
    return answer.stdout


def _listed(*words: str, folder: Path = Path()) -> list[str]:
    return [name for name in git(folder, "ls-files", "-z", *words).split("\0") if name]


def _copy(folder: Path) -> None:
    """Bring what git tracks, and modules that it does not track yet, to what they are in the person's tree."""
    for name in (*_listed("--cached"), *_listed(*NOT_YET_TRACKED)):
        source, place = Path(name), folder / name
        if source.is_dir() and not source.is_symlink():
            continue  # a submodule
        place.unlink(missing_ok=True)
        if source.is_symlink() or source.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place, follow_symlinks=False)
    private = Path(".dvc/config.local")
    if private.exists():
        shutil.copy2(private, folder / private)


def _link(source: Path, folder: Path) -> None:
    """Link what git does not track: the whole of it, or of a folder in which it tracks some the rest, file by file."""
    if not os.path.lexists(folder / source):
        names = [str(source)] if source.exists() else []  # who reads it says that it is not there
    else:
        names = _listed("--others", "--", str(source)) if source.is_dir() else []
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(Path(name).absolute())


def _configure_dvc(folder: Path) -> None:
    """Share the cache of the person's project, and keep DVC's notes about the checkout in it."""
    command = (sys.executable, "-m", "dvc")
    asked = subprocess.run((*command, "cache", "dir"), capture_output=True, text=True, check=False)
    if asked.returncode:
        raise StageError(f"dvc cache dir failed: {asked.stderr.strip()}")
    values = {"cache.dir": asked.stdout.rstrip("\n"), "core.site_cache_dir": str(folder.absolute() / ".dvc/tmp/site")}
    for key, value in values.items():
        words = (*command, "config", "--local", key, value)
        subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL)
