"""What `make run` does: the training flow, and where there is no network yet, the flow on digits.

Reads:  params.yaml, recipes/, DATA_MIRROR; without options, RECIPE or DATASET, and WAIT
Run:    python -m flows run [--recipe NAME | --dataset NAME] [--wait SECONDS]
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from flows import overrides, recipes, train
from flows.runtime import checkout, project_lock
from flows.runtime.command import Training, run
from flows.runtime.project_lock import ProjectLocked
from tasks.data import fetch
from tasks.dvc import StageRun
from tasks.harness.errors import ParamsError, StageError
from tasks.harness.section import PARAMS
from tasks.params import whole

FALLBACK = "digits"
MARKER = Path(".cache/fallback-params.yaml")  # what the fallback made of params.yaml
NOTICE = (
    "digits, because no mirror answered: this model knows handwritten digits; "
    "back with `git restore params.yaml dvc.lock reports`"
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m flows run", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="write what recipes/NAME.yaml says to params.yaml first (without options: RECIPE of the environment)",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="the same with its recipe, unless params.yaml names it already (without options: DATASET)",
    )
    train.add_wait(parser)
    options = parser.parse_args(arguments)
    by_option = options.recipe is not None or options.dataset is not None
    recipe, dataset = (options.recipe, options.dataset) if by_option else map(os.environ.get, ("RECIPE", "DATASET"))
    if recipe and dataset:
        both = "--recipe {} and --dataset {}" if by_option else "RECIPE={} and DATASET={} of the environment"
        parser.error(f"{both.format(recipe, dataset)} cannot both be chosen: each is a recipe")
    try:
        checkout.check()
        with project_lock.hold(options.wait):
            if recipe:
                run(_chosen, recipes.changes(recipe))
            elif dataset:
                run(_chosen, recipes.for_dataset(dataset))
            elif falls_back(_committed(), _current()):
                _run_fallback()
            else:
                run(train.flow, [])
    except (ParamsError, StageError, ProjectLocked) as error:
        sys.exit(f"make run: {error}")


def _chosen() -> Training:
    """Import the training flow for a choice: once it begins, params.yaml is no longer what the fallback made."""
    training = train.flow()

    def chosen(changes: list[str]) -> list[StageRun]:
        MARKER.unlink(missing_ok=True)
        return training(changes)

    return chosen


def _run_fallback() -> None:
    changes = recipes.changes(FALLBACK)
    MARKER.write_text(overrides.apply(_current(), changes)[0], encoding="utf-8")
    print(NOTICE, flush=True)
    try:
        run(train.flow, changes)
    finally:
        print(f"\n{NOTICE}")


def falls_back(committed: str, current: str) -> bool:
    """Tell whether this run is to use the fallback, from the text of params.yaml as committed and as it is.

    Only where the user has not chosen: the file is unchanged and no source of its dataset answers, or it is what an
    earlier fallback made of it. Outside git there is nothing to compare with, and no fallback.
    """
    if not committed:
        return False
    if current != committed:
        return MARKER.exists() and current == MARKER.read_text(encoding="utf-8")
    return not fetch.answers(whole.load().download.dataset)


def _current() -> str:
    return PARAMS.read_text(encoding="utf-8") if PARAMS.exists() else ""


def _committed() -> str:
    """Return params.yaml as committed; outside git, nothing."""
    try:
        answer = subprocess.run(["git", "show", f"HEAD:./{PARAMS}"], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # there is no git
        return ""
    return answer.stdout


if __name__ == "__main__":
    main()
