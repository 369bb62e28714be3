"""The steps of a night, runs that wait before one of them, and what is in service then."""

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from flows.promotion import history, store
from serving import champion
from tests.support.nights import Prefect, wait_for
from tests.support.pausing.sitecustomize import PAUSE_BEFORE, PAUSED, RELEASED

# What a night is about to do, in its order, as Python's audit events have it. Each is the first of a new schedule to
# come to: what was before it is done by then, or done again.
STEPS = {
    "the import": r"^import \('flows.promote'",
    "the clone": r"^subprocess.Popen .*'clone'",
    "download": r"^subprocess.Popen .*'repro', .*'download'",
    "transform": r"^subprocess.Popen .*'repro', .*'transform'",
    "train": r"^subprocess.Popen .*'repro', .*'train'",
    "evaluate": r"^subprocess.Popen .*'repro', .*'evaluate'",
    "export": r"^subprocess.Popen .*'repro', .*'export'",
    "the trial": r"^subprocess.Popen .*/packages'",
    "the verdict": r"^os.rename .*/verdicts/",
    "the model": r"^os.rename .*/registry/[0-9a-f]{64}'",
    "the entry": r"^os.link .*/history/",
    "the pointer": r"^os.rename .*/champion.json'",
    "the commit": r"^subprocess.Popen .*'commit'",
    "the branch": r"^subprocess.Popen .*'fetch'",
    "the end": r"^shutil.rmtree .*/retraining/checkout",
}
PATIENCE_S = 120  # with what ends
# What starts a schedule, whose runs wait before the step that `pause_before` names, and its server.
Nights = tuple[Callable[[], AbstractContextManager[subprocess.Popen[str]]], Prefect]


def plays(count: int) -> list[Any]:
    """Return the numbers of so many plays, of which CI has the first."""
    return [pytest.param(play, marks=pytest.mark.long if play else pytest.mark.nights) for play in range(count)]


def pause_before(step: str | None) -> None:
    """Have the next run wait before that step; None: before none."""
    for path in (PAUSED, RELEASED, PAUSE_BEFORE):
        path.unlink(missing_ok=True)
    if step:
        PAUSE_BEFORE.parent.mkdir(exist_ok=True)
        PAUSE_BEFORE.write_text(step)


def wait_until_paused(schedule: subprocess.Popen[str]) -> None:
    """Read what it prints meanwhile, which nobody else does."""
    wait_for(schedule, "^paused before")


def in_service(root: Path, model: str) -> bool:
    """Tell whether the model is in service, which is whole then, as is what serves it."""
    pointed, entries = champion.read(root), history.read(root)
    if pointed:
        assert sha256(champion.content(root, pointed)).hexdigest() == model
    for entry in entries:
        assert store.check(root, entry).name == model
    return bool(entries)
