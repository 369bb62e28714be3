"""What every stage's `main` runs inside, so that every caller gets the same safety.

Outputs are written to a folder beside their place and renamed into it after the stage has succeeded, if its inputs are
still what they were and whoever started it is still there. A failure that has a reason prints it in one sentence and
exits with 1, one that is a defect keeps its traceback; either publishes nothing but a report that says why.
"""

import errno
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tasks.harness import disk, lifeline, lock
from tasks.harness.errors import InputsChanged, ParamsError, StageError, of_system
from tasks.harness.inputs import Inputs
from tasks.harness.lock import Locked

LOCKS = Path(".cache/locks")
ENDS_WITHIN_S = 5  # a stage whose parent was killed


class Stage:
    """A stage that is running: its inputs as they were at its start, and the places for its outputs meanwhile."""

    def __init__(self, name: str, inputs: Inputs, writes: Sequence[str]) -> None:
        self.inputs = inputs
        self.writes = writes
        self._partial = f".partial-{name}"
        self.folders = frozenset(Path(output).parent / self._partial for output in writes)

    def path(self, output: str) -> Path:
        """Return where to write `output`: on the same file system, and under the same file name."""
        return Path(output).parent / self._partial / Path(output).name

    def check(self) -> None:
        """See that all inputs are what they were at the start.

        Raises:
            InputsChanged: one is not.
        """
        if changed := self.inputs.changed():
            raise InputsChanged(
                f"{', '.join(changed)} changed while the stage ran; nothing was published, run it again"
            )

    def publish(self, *outputs: str) -> None:
        """Rename the outputs, those given or all, into their places, in their order.

        Raises:
            InputsChanged: see `check`.
        """
        with lifeline.publishing:
            self.check()
            if lifeline.holds():
                for output in outputs or self.writes:
                    _replace(self.path(output), Path(output))
                return
        signal.pause()  # the end is near: nobody waits for these outputs, and the next run may be writing its own


@contextmanager
def stage(
    name: str, *, reads: Sequence[str] = (), params: Sequence[str] = (), writes: Sequence[str]
) -> Iterator[Stage]:
    """Run the body of stage `name` and publish its outputs if it succeeds.

    Args:
        name: as in dvc.yaml, like all of these.
        reads: the files and folders that it depends on, besides its code.
        params: the sections and keys of params.yaml that it depends on.
        writes: its outputs that appear only when they are whole, the JSON that describes the others last; none of a
            process that helps another, which need not be alone.
    """
    running = Stage(name, Inputs(reads, params), writes)
    with _reasons(running, name), _alone(name) if writes else nullcontext():
        try:
            lifeline.partial_folders |= running.folders
            for folder in running.folders:
                shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
                folder.mkdir(parents=True)
            yield running
            running.publish()
        finally:
            for folder in running.folders:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _reasons(running: Stage, name: str) -> Iterator[None]:
    """Turn an error that has a reason into one sentence; that an input changed meanwhile is the first of reasons."""
    try:
        yield
    except (StageError, ParamsError, OSError) as error:
        reason = _explain(error, name, running.writes) if isinstance(error, OSError) else str(error)
        try:
            running.check()
        except InputsChanged as changed:
            reason = str(changed) if isinstance(error, InputsChanged) else f"{changed}. It had failed: {reason}"
        sys.exit(f"{name}: {reason}")


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Hold the stage's lock, so that no other process writes to the same folders.

    Raises:
        StageError: another process of this stage is at work; one whose parent was killed gets the time to end.
    """
    try:
        with lock.hold(LOCKS / f"{name}.lock", ENDS_WITHIN_S):
            yield
    except Locked as locked:
        process = locked.holder.get("pid", "unknown")
        raise StageError(f"it runs already, as process {process}: wait until that has ended") from None


def _replace(new: Path, place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        place.rename(new.parent / f"{new.name}.old")  # a folder cannot be renamed over one that holds files
    new.replace(place)


def _explain(error: OSError, name: str, outputs: Sequence[str]) -> str:
    where = ", ".join(outputs) or "its outputs"
    if error.errno == errno.ENOSPC and outputs:
        free_mb = disk.free_mb(Path(outputs[0]).parent)
        return f"the disk is full ({free_mb:.0f} MB free); {where} not written: make room and run again"
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is missing: run the stages before this one too, with dvc repro {name}"
    return f"{of_system(error)}; {where} not written"
