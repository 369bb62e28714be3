"""A night's own checkout: what was committed, with the images, weights, mirror and registry of the person's tree."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.promotion import history
from flows.runtime import clone
from flows.runtime.clone import Clone, git
from tasks.data.datasets import DATASETS
from tasks.harness.errors import listed
from tasks.params.whole import Params

WHAT = "retraining"
FOLDER = Path(".cache/retraining")
CHECKOUT = FOLDER / "checkout"
KEPT = FOLDER / "kept"  # what is .cache/ in the checkout: checkpoints and logs outlive it
NAMED = 5  # files in a message


def home() -> Path:
    """Return the project's folder; in a night's checkout that of the person's tree which it belongs to."""
    here = Path.cwd()
    inside = (folder for folder in (here, *here.parents) if folder.parts[-len(CHECKOUT.parts) :] == CHECKOUT.parts)
    return next((folder.parents[len(CHECKOUT.parts) - 1] for folder in inside), here)


@contextmanager
def checkout() -> Iterator[Clone]:
    """Make the checkout, and work in it: it is the working directory of the body, and removed afterwards.

    One that a killed night has left is removed first. Its checkpoints are kept, so that the training goes on.

    Raises:
        StageError: there is no commit.
    """
    tree = Path.cwd()
    made = clone.make(tree / CHECKOUT, tree / KEPT, WHAT, edits=False)
    before = dict(os.environ)
    os.environ[history.VARIABLE] = str(history.registry().absolute())
    if (mirror := os.environ.get("DATA_MIRROR")) and "://" not in mirror:
        os.environ["DATA_MIRROR"] = str(Path(mirror).absolute())
    os.chdir(made.folder)
    try:
        yield made
    finally:
        os.chdir(tree)
        for name in (history.VARIABLE, "DATA_MIRROR"):
            os.environ.pop(name, None)
            os.environ.update({name: before[name]} if name in before else {})
        clone.remove(made.git)


def link(params: Params) -> None:
    """Link the images and weights that a night with these parameters reads into its checkout, the working directory.

    Raises:
        StageError: a path leads out of the project.
    """
    weights = params.train.transfer.weights
    own = [params.download.path] if DATASETS[params.download.dataset].format == "files" else []
    own += [weights] if weights not in (None, "hub") else []
    clone.link(own, home(), Path(), WHAT)


def edits() -> str | None:
    """Say which edits of the person's tree a night leaves out, because they are not committed; None: there are none."""
    changed = [line[3:] for line in git(home(), "status", "--porcelain", "--untracked-files=no").splitlines()]
    return f"not in it, because it is not committed: {listed(changed, NAMED)}" if changed else None
