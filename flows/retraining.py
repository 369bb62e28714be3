"""A night: train what was committed in a checkout of its own, judge the model, and put it into service or turn it down.

Reads:  what git has of the project, the images and weights of the person's tree, the registry
Writes: the registry; a branch retraining/...; .cache/retraining/
Run:    by the deployments of prefect.yaml, see flows/runtime/schedule.py
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from traceback import format_exception_only
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.states import Completed, Failed
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from flows import overrides
from flows.promote import Refused, Waits, find, promote
from flows.promotion import arrivals, judgement, shared, store, tags, unjudged, waiting
from flows.promotion.candidate import Candidate, of_models, of_registry
from flows.promotion.history import Entry
from flows.report import nights
from flows.runtime import branches, deployments, form, labels, night, project_lock
from flows.runtime.clone import Clone
from flows.runtime.log import quieten
from flows.runtime.project_lock import ProjectLocked
from flows.runtime.trouble import said
from flows.runtime.worker import end_run_with_worker
from flows.training import learn, prepare
from serving.champion import registry
from tasks.data.datasets import DATASETS
from tasks.dvc import StageFailed, StageRun, StageTimedOut, log_path
from tasks.gates.verdict import Verdict
from tasks.harness.errors import ParamsError, StageError, listed
from tasks.harness.section import Seed
from tasks.params import whole
from tasks.params.train import BatchSize, Epochs, LearningRate
from tasks.params.whole import Params
from tasks.prepared import Split

PROMOTED, WAITING = "Promoted", "Waiting"
KEPT = (PROMOTED, branches.REFUSED, WAITING)  # of these a branch is made
REASONS = 3  # in a state's message
Version = Annotated[str, Field(min_length=store.SHORTEST, max_length=64, pattern="^[0-9a-f]*$")]


class Blocked(Exception):
    """Nothing is to be trained, because of the data."""


@flow(name="retraining", flow_run_name=labels.run_name, on_crashed=[unjudged.crashed])
def retraining(
    recipe: form.Recipe | SkipJsonSchema[None] = None,
    path: form.Text | SkipJsonSchema[None] = None,
    image_size: form.Size | SkipJsonSchema[None] = None,
    epochs: Epochs | SkipJsonSchema[None] = None,
    batch_size: BatchSize | SkipJsonSchema[None] = None,
    learning_rate: LearningRate | SkipJsonSchema[None] = None,
    seed: Seed | SkipJsonSchema[None] = None,
) -> State[Any]:
    """Train what was committed, and put the model into service if it is better than the one that is there.

    What is changed here is of this run alone. A field that is as it was committed leaves it to the recipe.

    Args:
        recipe: One of recipes/, which also says what to train on. None: as in params.yaml.
        path: Where your own images are, for the recipes folder and csv.
        image_size: Height and width of your own images, in pixels, once they are prepared.
        epochs: How often to go through the training images.
        batch_size: Images a step.
        learning_rate: Of the optimiser, the highest.
        seed: Of the order of the images and of the initial weights.
    """
    labels.tag()  # now, because a run that is refused or skipped never gets to the training, which does so, too
    if deployment.id:
        end_run_with_worker()
        deployments.begin()
        if newer := deployments.overtaken():
            return deployments.superseded(newer)
    fields: dict[str, object] = {
        "path": path,
        "image_size": image_size,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
    }

    def act(checkout: Clone, remarks: list[str]) -> State[Any]:
        changes = form.changes(recipe, fields)
        night.link(overrides.check(changes))
        return trained(checkout, changes, remarks)

    return at_night(act)


@flow(name="promotion", flow_run_name=labels.run_name, on_crashed=[unjudged.crashed])
def promotion(version: Version, reason: form.Text) -> State[Any]:
    """Put a model that waits for approval into service, or one that was there, if it passes once more.

    It is judged again, against the model that is in service now, and on the test images of what is committed now.

    Args:
        version: The first digits of the model, which the run that ended as Waiting has named.
        reason: Why; the history keeps it.
    """
    labels.tag()
    if deployment.id:
        end_run_with_worker()
        deployments.begin()
    return at_night(lambda _, remarks: approved(version, reason, remarks))


def at_night(act: Callable[[Clone, list[str]], State[Any]]) -> State[Any]:
    """Have `act` work in a checkout of what was committed, alone, and end as a person reads it.

    Args:
        act: is called with the checkout, the working directory, and with what a person is to know of this run.
    """
    quieten()
    remarks: list[str] = []
    try:
        with project_lock.hold(path=project_lock.NIGHT), night.checkout() as checkout:
            remarks += [edits] if (edits := night.edits()) else []
            state = act(checkout, remarks)
            state.message = "; ".join((str(state.message), *shared_with_others()))
    except StageFailed as failed:
        name = "TimedOut" if isinstance(failed, StageTimedOut) else "Failed"
        state = Failed(name=name, message=with_log(failed))  # raised, Prefect would say what it is called, and no log
    except (StageError, ParamsError, OSError) as refused:
        state = Failed(message=said(refused))
    except ProjectLocked as locked:
        state = Completed(name="Skipped", message=f"Skipped: {locked.holder} is at work")
    except BaseException as other:  # of which Prefect makes a state: a mistake of ours, or a signal
        name = "Failed" if isinstance(other, Exception) else "Stopped"
        unjudged.write(registry(), name, "".join(format_exception_only(other)).rstrip(), this_run(), remarks)
        raise
    state = told(state, remarks)
    get_run_logger().log(logging.ERROR if state.is_failed() else logging.INFO, state.message)
    return state


def approved(version: str, reason: str, remarks: list[str]) -> State[Any]:
    """Judge a model of the registry once more, in the checkout, and put it into service."""
    root = registry()
    night.link(overrides.check([]))
    prepare()
    try:
        candidate = of_registry(root, find(root, version))
        entry = promote(root, whole.load(), candidate, reason=reason, by=this_run(), remarks=remarks)
    except Refused as refused:
        return Completed(name=branches.REFUSED, message=str(refused))
    return Completed(name=PROMOTED, message=entry.line) if entry else nothing_new(f"{candidate.version} is in service")


def trained(checkout: Clone, changes: list[str], remarks: list[str]) -> State[Any]:
    """Prepare the data in the checkout, the working directory, look at what has arrived, train, judge, and act on it.

    Args:
        remarks: what a person is to know of this night.
    """
    started, root = datetime.now(UTC), registry()
    try:
        prepared = prepared_data(changes)
        params = whole.load()
        arrived = look_at_arrivals(root, params, remarks)
    except Blocked as blocked:
        return Failed(name="Blocked", message=f"Blocked, nothing was trained: {blocked}")
    learn(prepared, started)
    candidate, entries = of_models(), shared.read(root)  # somebody may have put another model into service meanwhile
    if entries and entries[-1].model == candidate.digest:
        branch = kept(checkout, PROMOTED, candidate)  # unless the night that put it there has
        return nothing_new(f"{candidate.version}, in service, is what would be trained{branch}")
    if why := was_judged(root, params, candidate, entries):
        return nothing_new(why)
    if arrived.passed:
        remarks = [*remarks, *arrived.reasons]
    state = judged(root, params, candidate, arrived, remarks)
    if state.name in KEPT:
        state.message = f"{state.message}{kept(checkout, state.name, candidate)}"
    return state


def prepared_data(changes: list[str]) -> list[StageRun]:
    """Prepare the data.

    Raises:
        Blocked: because of the data themselves.
        StageFailed: of anything else.
    """
    try:
        return prepare(changes)
    except StageError as error:  # the images cannot even be asked for
        raise Blocked(error) from None
    except StageFailed as failed:
        if is_of_data(failed, whole.load()):
            raise Blocked(with_log(failed)) from None
        raise


def look_at_arrivals(root: Path, params: Params, remarks: list[str]) -> Verdict:
    """Return what is to be said of what has arrived.

    Raises:
        Blocked: nothing is to be trained on it; the verdict file is written.
    """
    entries = shared.read(root)
    arrived = arrivals.look(root, entries, params)
    if arrived.outcome == "failed":
        judgement.write(root, arrivals.blocked(arrived, entries, params, this_run(), remarks))
        raise Blocked("; ".join(arrived.reasons))
    return arrived


def was_judged(root: Path, params: Params, candidate: Candidate, entries: list[Entry]) -> str | None:
    """Say why a model which is not in service needs no judgement; None: it does."""
    model, version = candidate.digest, candidate.version
    champion = entries[-1].model if entries else None
    if since := [entry for entry in entries if entry.replaces == model]:
        return f"{version} was in service, and does not come back by itself: {since[-1].line}"
    test_set = store.name_of(store.digests(Split.read("test").images))
    if verdict := judgement.worse(root, model, champion, params.retraining.model_dump(), test_set):
        return f"{version} was judged at {verdict.time[:16]} UTC and not found good enough"
    waits = [one for one in waiting.read(root) if (one.model, one.replaces) == (model, champion)]
    if waits and params.retraining.approval:
        return f"{version} waits for approval since {waits[0].time[:16]} UTC"
    return None


def judged(root: Path, params: Params, candidate: Candidate, arrived: Verdict, remarks: list[str]) -> State[Any]:
    """Judge a model, and put it into service, turn it down, or have it wait."""
    approval = params.retraining.approval
    try:
        entry = promote(root, params, candidate, by=this_run(), remarks=remarks, arrivals=arrived, wait=approval)
    except Refused as refused:
        return Completed(name=branches.REFUSED, message=str(refused))
    except Waits as waits:
        return Completed(name=WAITING, message=f"{waits}, or the deployment promotion")
    if entry is None:
        return nothing_new(f"{candidate.version} was put into service meanwhile")
    return Completed(name=PROMOTED, message=entry.line)


def this_run() -> str:
    return labels.named(flow_run.name, flow_run.id)


def told(state: State[Any], remarks: list[str]) -> State[Any]:
    """Show the verdict of this run, if it has one, in Prefect's UI, and say in its state why and where that is.

    One that failed has one: what was said of a model is not why, unless it is that there was none.
    """
    root, by = registry().absolute(), this_run()
    if state.is_failed():
        unjudged.write(root, str(state.name), str(state.message), by, remarks)
    if last := judgement.last_by(root, by):
        judged, page = last[0], last[1].with_suffix(".html")
        nights.publish(judged, page)
        why = [listed(judged.reasons, REASONS, "; ")] if judged.model and judged.reasons else []
        message = str(state.message)
        state.message = ("\n" if "\n" in message else "; ").join((message, *why, f"see {page}"))
    return state


def with_log(failed: StageFailed) -> str:
    """Say why a stage of a night has failed, and where its log outlives the checkout."""
    return f"{failed.reason}\nlog: {night.KEPT / log_path(failed.stage).relative_to('.cache')}"


def is_of_data(failed: StageFailed, params: Params) -> bool:
    """Tell whether a stage has failed because of the images, which somebody has to look at."""
    own = DATASETS[params.download.dataset].format == "files"
    stages = ("download", "transform") if own else ("transform",)
    return failed.stage in stages and not isinstance(failed, StageTimedOut) and "SIGKILL" not in failed.reason


def nothing_new(why: str) -> State[Any]:
    return Completed(name="Nothing new", message=f"Nothing new: {why}")


def kept(checkout: Clone, outcome: str, candidate: Candidate) -> str:
    """Keep what the run has changed as a branch, and say where it is: the model is judged already."""
    try:
        branch = branches.keep(checkout, night.home(), outcome, candidate.digest)
    except StageError as error:
        get_run_logger().error(str(error))
        return f"; it has no branch: {error}"
    return f"; branch {branch}" if branch else ""


def shared_with_others() -> list[str]:
    """Push branches and tag what is in service, as an earlier night may have failed to, and say what came of it.

    Branches of models that were refused long ago are removed first.
    """
    home, keep_days = night.home(), whole.load().retraining.keep_days
    with suppress(StageError):  # the next night tries again
        for old in branches.prune(home, keep_days):
            get_run_logger().info("removed %s, which was refused more than %d days ago", old, keep_days)
    try:
        pushed = branches.push(home)
    except StageError as error:
        pushed = f"not pushed, which the next night tries again: {error}"
    return [said for said in (pushed, tags.mirror(registry())) if said]
