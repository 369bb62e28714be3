"""What `make run` does: the training flow, and where there is no network yet, the flow on digits.

Reads:  params.yaml, DATA_MIRROR
Run:    python -m flows.run [DATASET]
"""

import subprocess
import sys
from pathlib import Path

from flows import overrides, project_lock
from flows.command import run
from flows.project_lock import ProjectLocked
from flows.training import training
from tasks import download, params
from tasks.params import ParamsError
from tasks.stage import StageError

# The training parameters that suit a dataset: epochs, learning rate, normalisation. With the quickstart's learning rate
# digits stay at chance.
RECIPES = {
    "fashion_mnist": (5, 0.001, "none"),
    "mnist": (5, 0.1, "none"),
    "kmnist": (5, 0.1, "none"),
    "cifar10": (10, 0.01, "half"),
    "cifar100": (10, 0.01, "half"),
    "digits": (60, 0.1, "none"),
    "csv": (20, 0.01, "fitted"),
    "folder": (20, 0.01, "fitted"),
}
# As published, some of their test images are among the training images: Barz and Denzler, Do We Train on Test Data?
# Purging CIFAR of Near-Duplicates, Journal of Imaging 6(6), 2020.
LEAKS_ARE_PUBLISHED = ("cifar10", "cifar100")
FALLBACK = "digits"
MARKER = Path(".cache/fallback-params.yaml")  # what the fallback made of params.yaml
NOTICE = (
    "digits, because no mirror answered: this model knows handwritten digits; "
    "back with `git restore params.yaml dvc.lock reports`"
)


def changes(dataset: str, before: str = "") -> list[str]:
    """List the overrides of params.yaml that train on `dataset`, where it names the dataset `before`.

    Raises:
        ParamsError: there is no such dataset.
    """
    if dataset not in RECIPES:
        raise ParamsError(f"DATASET={dataset}: no such dataset; known here: {', '.join(RECIPES)}")
    epochs, learning_rate, normalize = RECIPES[dataset]
    return [
        f"download.dataset={dataset}",
        *(["transform.on_leak=allow"] if dataset in LEAKS_ARE_PUBLISHED else []),
        *(["transform.on_leak=fail"] if dataset not in LEAKS_ARE_PUBLISHED and before in LEAKS_ARE_PUBLISHED else []),
        f"train.epochs={epochs}",
        f"train.learning_rate={learning_rate}",
        f"train.normalize={normalize}",
    ]


def falls_back(committed: str, current: str) -> bool:
    """Tell whether this run is to use the fallback, from the text of params.yaml as committed and as it is.

    Only where the user has not chosen: the file is unchanged and no source of its dataset answers, or it is what an
    earlier fallback made of it.
    """
    if current != committed:
        return MARKER.exists() and current == MARKER.read_text(encoding="utf-8")
    return not download.answers(params.load().download.dataset)


def main() -> None:
    try:
        with project_lock.hold():
            _run(sys.argv[1:])
    except (ParamsError, StageError, ProjectLocked) as error:
        sys.exit(f"make run: {error}")


def _run(datasets: list[str]) -> None:
    current = params.PATH.read_text(encoding="utf-8") if params.PATH.exists() else ""
    if datasets:
        before = params.load().download.dataset
        wanted = changes(datasets[0], before)
        if datasets[0] == before:
            wanted = []  # whatever was changed since is the user's choice
        MARKER.unlink(missing_ok=True)
        run(training, wanted)
    elif (committed := _committed()) and falls_back(committed, current):
        wanted = changes(FALLBACK)
        MARKER.write_text(overrides.apply(current, wanted)[0], encoding="utf-8")
        print(NOTICE, flush=True)
        try:
            run(training, wanted)
        finally:
            print(f"\n{NOTICE}")
    else:
        run(training, [])


def _committed() -> str:
    answer = subprocess.run(["git", "show", f"HEAD:./{params.PATH}"], capture_output=True, text=True, check=False)
    return answer.stdout  # empty outside git: nothing to compare with, so no fallback


if __name__ == "__main__":
    main()
