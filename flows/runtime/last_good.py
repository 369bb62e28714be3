"""The state of the last run that was complete: what `dvc checkout` needs to bring back its data and models."""

import shlex
import shutil
import sys
from pathlib import Path

from flows.runtime.checkout import in_git
from tasks.dvc import log_path

FOLDER = Path(".cache/last-good")
EARLIER = Path(".cache/before-last-good")  # the last complete run that came to something else
KEPT_BY_GIT = ("params.yaml", "dvc.lock", "reports/metrics.json")  # what a run writes and DVC does not keep


def keep() -> None:
    """Copy what a run that is complete has left in git's part of the project, and the figures that it came to."""
    partial = FOLDER.with_name(f".partial-{FOLDER.name}")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "reports").mkdir(parents=True)
    for path in (*map(Path, KEPT_BY_GIT), *Path("reports").glob("*.json")):
        shutil.copyfile(path, partial / path)
    if FOLDER.exists() and not _same(FOLDER):
        shutil.rmtree(EARLIER, ignore_errors=True)
        FOLDER.rename(EARLIER)
    shutil.rmtree(FOLDER, ignore_errors=True)
    partial.rename(FOLDER)


def before() -> Path | None:
    """Return what is kept of the last complete run whose inputs or outputs were others than now; None: of none."""
    return next((folder for folder in (FOLDER, EARLIER) if folder.exists() and not _same(folder)), None)


def _same(folder: Path) -> bool:
    lock = Path("dvc.lock")
    return lock.exists() and (folder / lock).read_bytes() == lock.read_bytes()


def way_back(stage: str) -> str:
    """Say, after `stage` has failed, where its log is and which commands bring back the last good state."""
    log = f"log: {log_path(stage)}"
    if FOLDER.exists():
        dvc = Path(sys.executable).with_name("dvc")
        dvc = dvc.relative_to(Path.cwd()) if dvc.is_relative_to(Path.cwd()) else dvc
        # One by one: of the other figures there DVC has the files, and what it has linked may not be written over.
        copies = " && ".join(f"cp {FOLDER}/{name} {name}" for name in KEPT_BY_GIT)
        # By force, because the report of a gate that failed is in DVC's way, and so is a learning curve that was not
        # finished; of dvc.yaml alone, because one's own images, where DVC keeps them too, may have changed since.
        return f"{log}\nback to the last complete run: {copies} && {shlex.quote(str(dvc))} checkout --force dvc.yaml"
    if in_git():  # nothing that DVC could check out was ever made here
        return f"{log}\nback to the last commit: git restore params.yaml dvc.lock reports"
    return log
