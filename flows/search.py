"""Search the ranges of params.yaml for the values that do best on the validation images: what `make search` does.

Each trial is the stages download, transform and train, through DVC, in a checkout of its own in .cache/search/; it is
given up early where its learning curve is below the median of the others. The test images have no say in it.

Reads:  params.yaml (search, and all that a trial needs), what git tracks
Writes: recipes/search-<study>.yaml, reports/search.png, reports/search.csv, and an experiment for each trial that came
        to its end, which `dvc exp show` lists
Run:    python -m flows search
"""

import argparse
import hashlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ruamel.yaml import YAML

from flows import overrides
from flows.runtime import checkout as project
from flows.runtime import clone, inbox
from flows.runtime.stopped import STOPPED_BY, Stopped, stop
from flows.trials import checkout, loop, outcome
from flows.trials.checkout import STAGES, Checkout
from flows.trials.loop import Hopeless, Plan
from flows.trials.picture import picture
from flows.trials.space import Space, Values, override
from flows.trials.study import Study
from tasks import dvc
from tasks.data import strangers
from tasks.harness import lock
from tasks.harness.errors import ParamsError, StageError
from tasks.harness.lock import Locked
from tasks.harness.replacing import replacing
from tasks.harness.section import PARAMS
from tasks.model.cores import physical_cores
from tasks.params import whole
from tasks.params.whole import Params

FOLDER = Path(".cache/search")
PICTURE, TABLE = Path("reports/search.png"), Path("reports/search.csv")
# Of a git hook, for example: git and DVC would work elsewhere than in the folder that they are started in.
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")
WARM_UP = 3  # of so many parts of the epochs the first, in which the learning rate rises and curves cross


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m flows search", description=__doc__.splitlines()[0])
    parser.parse_args(arguments)
    for number in STOPPED_BY:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, stop)
    for variable in ELSEWHERE:
        os.environ.pop(variable, None)
    try:
        project.check()
        with lock.hold(FOLDER / "lock", 0):
            search()
    except Locked as locked:
        sys.exit(f"make search: the search with pid {locked.holder.get('pid', 'unknown')} is at work in this project")
    except (ParamsError, StageError, Hopeless) as error:
        sys.exit(f"make search: {error}")
    except OSError as error:
        sys.exit(f"make search: {error}; the same command goes on there")
    except Stopped as stopped:
        name = signal.Signals(stopped.number).name
        print(f"\nthe search was stopped by {name}; the same command goes on there", file=sys.stderr, flush=True)
        sys.exit(128 + stopped.number)


def search() -> None:
    """Run the search that params.yaml declares, or what is left of it, and write what it came to.

    Raises:
        ParamsError: params.yaml, or what it declares, is refused.
        StageError: the data cannot be had, or there can be no checkouts.
        Hopeless: the trials fail.
    """
    params, text = whole.load(), PARAMS.read_text(encoding="utf-8")
    at_a_time, changed = shares(params)
    Space(params.search.space, text)  # so that it is refused in the words of params.yaml
    base, _ = overrides.apply(text, [override(key, value) for key, value in changed.items()])
    space = Space(params.search.space, base)
    strangers.check()
    links = bool(inbox.links_to_folders(params.download))
    own = clone.own(params, weights(params, space))
    clone.name_mirror_from_root()
    checkouts = [
        checkout.make(FOLDER / f"checkouts/{number}", FOLDER / f"caches/{number}", own) for number in range(at_a_time)
    ]
    checkouts = prepare(checkouts, base, space, links)
    name = digest(params, base, checkouts[0])
    folder = FOLDER / "studies" / name
    folder.mkdir(parents=True, exist_ok=True)
    study = Study(folder / "journal.log", space, params.search.seed, max(2, params.train.epochs // WARM_UP))
    announce(params, study, name, at_a_time, changed)
    limits = params.flow.time_limit_s
    seconds = sum(getattr(limits, stage) for stage in STAGES)
    loop.run(Plan(name, folder, base, params.search.trials, params.train.epochs, seconds), study, checkouts)
    report(study, outcome.recipe(study, text, changed, name, params.download.dataset), name, folder)
    for rest in ("checkouts", "caches"):
        clone.remove(FOLDER / rest)


def shares(params: Params) -> tuple[int, Values]:
    """Return how many trials run at a time, and what that changes of params.yaml: the threads of each.

    These decide the last bits of the results, so a trial names them where they are not those that it would have alone.
    """
    cores = physical_cores()
    threads = params.train.threads
    at_a_time = params.search.parallel or max(1, cores // ((threads or cores) * params.train.devices))
    if threads or at_a_time == 1:
        return at_a_time, {}
    return at_a_time, {"train.threads": max(1, cores // (at_a_time * params.train.devices))}


def weights(params: Params, space: Space) -> list[str]:
    """List the files of weights that a training may begin with."""
    one = space.ranges.get("train.transfer.weights")
    choices = one.choices if one and one.choices else [params.train.transfer.weights]
    return [choice for choice in choices if isinstance(choice, str)]


def prepare(checkouts: Sequence[Checkout], base: str, space: Space, again: bool) -> list[Checkout]:
    """Download, and prepare the images, in the first checkout: the trials in all others find them in DVC's cache.

    Args:
        again: download even if DVC sees no change.

    Raises:
        StageError: that failed.
    """
    first = checkouts[0]
    first.write(base)
    log = FOLDER / "prepare.log"
    log.unlink(missing_ok=True)
    print(f"preparing the images, see {log}", flush=True)
    steps: list[tuple[list[str], bool]] = [(["download"], again)]
    if not any(key.startswith("transform.") for key in space.ranges):
        steps.append((["transform"], False))
    for stages, force in steps:
        process = first.start(log, stages, force)
        try:
            code = process.wait()
        finally:
            dvc.stop(process)
        if code:
            raise StageError(f"{loop.reason(log)}\nlog: {log}")
    lock_file = (first.folder / checkout.LOCK).read_bytes()
    return [replace(one, lock=lock_file) for one in checkouts]


def digest(params: Params, base: str, first: Checkout) -> str:
    """Name the study after all that decides its trials: another one begins anew, and this one stays."""
    document = YAML(typ="safe").load(base)
    stages = {name: document[name] for name in STAGES}
    space = {key: one.model_dump() for key, one in params.search.space.items()}
    decides = (stages, space, params.search.seed, first.code(), first.images())
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:8]


def announce(params: Params, study: Study, name: str, at_a_time: int, changed: Values) -> None:
    again = study.requeue()
    done = len(study.over())
    goes_on = f", of which {done} are over" if done or again else ""
    threads = f", {loop.described(changed)} each" if changed else ""
    print(
        f"search {name} on {params.download.dataset}: {params.search.trials} trials{goes_on}, {at_a_time} at a time"
        f"{threads}, judged by the validation images",
        flush=True,
    )
    if again:
        print(f"begun again: {', '.join(f'trial {number}' for number in again)}", flush=True)


def report(study: Study, recipe: str, name: str, folder: Path) -> None:
    """Write and print what the search came to."""
    rows = outcome.rows(study)
    PICTURE.parent.mkdir(exist_ok=True)
    with replacing(PICTURE) as partial:
        picture(study).savefig(partial, format="png")
    with replacing(TABLE) as partial:
        partial.write_text(outcome.table_csv(rows), encoding="utf-8")
    path = outcome.keep(recipe, name, folder / "recipe.yaml")
    print(f"\n{outcome.table(rows)}\n")
    print(f"picture    {PICTURE}\ntable      {TABLE}; dvc exp show lists the trials that came to their end")
    print(f"recipe     {path}: make run RECIPE={path.stem}")
