"""A night's own checkout: what was committed, with the images, weights, mirror and registry of the person's tree."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.runtime import clone
from flows.runtime.clone import NOT_YET_TRACKED, Clone, git
from flows.runtime.clone import listed as listed_by_git
from serving.champion import VARIABLE, registry
from tasks.harness import section
from tasks.harness.errors import ParamsError, listed
from tasks.harness.section import PARAMS
from tasks.params.whole import Params

WHAT = "retraining"
FOLDER = Path(".cache/retraining")
CHECKOUT = FOLDER / "checkout"
KEPT = FOLDER / "kept"  # what is .cache/ in the checkout: checkpoints and logs outlive it
NAMED = 5  # files in a message
MADE = ("dvc.lock", "reports/metrics.json")  # by a run, and no edit of anybody's

_trees: list[Path] = []  # of the night that is at work in this process, if one is


def home() -> Path:
    """Return the project's folder; in a night's checkout that of the person's tree which it belongs to."""
    return _trees[-1] if _trees else Path.cwd()


@contextmanager
def checkout() -> Iterator[Clone]:
    """Make the checkout, and work in it: it is the working directory of the body, and removed afterwards.

    One that a killed night has left is removed first. Its checkpoints are kept, so that the training goes on.

    Raises:
        StageError: there is no commit.
    """
    tree = Path.cwd()
    before = dict(os.environ)
    _trees.append(tree)
    try:
        made = clone.make(tree / CHECKOUT, tree / KEPT, WHAT, edits=False)
        os.environ[VARIABLE] = str(registry().absolute())
        clone.name_mirror_from_root()
        os.chdir(made.folder)
        yield made
    finally:
        os.chdir(tree)
        _trees.remove(tree)
        for name in (VARIABLE, "DATA_MIRROR"):
            os.environ.pop(name, None)
            os.environ.update({name: before[name]} if name in before else {})
        clone.remove(tree / CHECKOUT)


def link(params: Params) -> None:
    """Link the images and weights that a night with these parameters reads into its checkout, the working directory.

    Raises:
        StageError: a path leads out of the project.
    """
    clone.link(clone.own(params, [params.train.transfer.weights]), home(), Path(), WHAT)


def committed() -> Params:
    """Return what params.yaml says as it was committed.

    Raises:
        ParamsError: that is refused.
        StageError: nothing was committed.
    """
    text = git(home(), "show", f"HEAD:./{PARAMS}")
    try:
        document = YAML(typ="safe").load(text)
    except (YAMLError, ValueError) as error:
        raise ParamsError(f"{PARAMS}, as committed, is not valid YAML: {error}") from None
    return section.parse(Params, document, f"{PARAMS}, as committed,")


def committed_as() -> str:
    """Return what git calls params.yaml as it was committed: while that is the same, so is the file.

    Raises:
        StageError: nothing was committed.
    """
    return git(home(), "rev-parse", "--verify", f"HEAD:./{PARAMS}").rstrip("\n")


def edits() -> str | None:
    """Say which edits of the person's tree a night leaves out, because they are not committed; None: there are none.

    Of images and weights that DVC keeps it takes the ones in the tree, whatever their `.dvc` file says.
    """
    changed = git(home(), "diff", "--name-only", "--relative", "-z", "HEAD").split("\0")[:-1]
    changed = [name for name in changed if name not in MADE and not name.endswith(".dvc")]
    names = [
        name.encode("utf-8", "backslashreplace").decode()
        for name in (*changed, *listed_by_git(*NOT_YET_TRACKED, folder=home()))
    ]
    return f"not trained, because it is not committed: {listed(names, NAMED)}" if names else None
