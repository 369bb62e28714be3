"""The trials of a search, one after the other in each checkout: begun, followed, given up or brought to their end."""

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import Trial, TrialState

from flows import overrides
from flows.trials.checkout import Checkout
from flows.trials.space import Values, override
from flows.trials.study import Study, ranked
from tasks import dvc
from tasks.harness.errors import ParamsError, StageError

LOOK_AGAIN_S = 0.2
HOPELESS = 3  # trials that failed, where none has succeeded: the others would fail, too
TAIL = 15  # lines of the log of the last of them


class Hopeless(Exception):
    """All trials fail."""


@dataclass(frozen=True)
class Plan:
    """What there is to do; `name` is that of the study, `folder` for the logs, `text` params.yaml before a trial."""

    name: str
    folder: Path
    text: str
    trials: int
    epochs: int
    time_limit_s: float


@dataclass
class Running:
    """A trial that is running; `epoch` is the last one that Optuna knows of."""

    trial: Trial
    values: Values
    checkout: Checkout
    process: "subprocess.Popen[str]"
    log: Path
    started: float
    epoch: int = 0

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.started, 1)


def run(plan: Plan, study: Study, checkouts: Sequence[Checkout]) -> None:
    """Run trials until there are as many as the plan says, those of earlier runs included.

    Whatever ends it early leaves the trials that are running to be begun again.

    Raises:
        Hopeless: the first of them, or all, have failed.
    """
    free, running = list(checkouts), list[Running]()
    try:
        while True:
            while free and len(study.over()) + len(running) < plan.trials:
                if begun := _begin(plan, study, free[0]):
                    running.append(begun)
                    free.pop(0)
                _check_hope(plan, study)
            if not running:
                return
            for one in [one for one in running if _is_over(plan, study, one)]:
                dvc.stop(one.process)
                running.remove(one)
                shutil.rmtree(one.checkout.checkpoints, ignore_errors=True)  # nobody goes on from there
                free.append(one.checkout)
                _check_hope(plan, study)
            time.sleep(LOOK_AGAIN_S)
    finally:
        for one in running:
            dvc.stop(one.process)


def _begin(plan: Plan, study: Study, checkout: Checkout) -> Running | None:
    """Begin the next trial; None: its values do not go together."""
    trial = study.ask()
    values = study.space.decode(trial.params)
    try:
        text, _ = overrides.apply(plan.text, [override(key, value) for key, value in values.items()])
    except ParamsError as refused:
        _fail(study, trial, str(refused))
        return None
    checkout.write(text)
    log = plan.folder / f"{trial.number}.log"
    log.unlink(missing_ok=True)
    return Running(trial, values, checkout, checkout.start(log), log, time.monotonic())


def _is_over(plan: Plan, study: Study, one: Running) -> bool:
    """Take note of what a trial has come to; tell whether it is over, its process perhaps not yet."""
    code = one.process.poll()  # before the curve is read, which is then complete
    epochs = int(one.values.get("train.epochs", plan.epochs))
    rows = [row for row in one.checkout.curve() if row[0] > one.epoch]
    for epoch, accuracy in rows:
        one.trial.report(accuracy, epoch)
        one.epoch = epoch
        at_end = epoch == epochs or (code == 0 and epoch == rows[-1][0])
        if not at_end and one.trial.should_prune():
            study.tell(one.trial, TrialState.PRUNED, seconds=one.seconds)
            _say(one.trial, f"given up after epoch {epoch} at {accuracy:.2%}", one.values)
            return True
    if code is None and one.seconds < plan.time_limit_s:
        return False
    if code == 0:
        _complete(plan, study, one)
    elif code is None:
        _fail(study, one.trial, f"it took longer than flow.time_limit_s allows, {plan.time_limit_s:g} s")
    else:
        _fail(study, one.trial, reason(one.log))
    return True


def _complete(plan: Plan, study: Study, one: Running) -> None:
    try:
        kept = one.checkout.kept()
    except (StageError, OSError) as error:
        _fail(study, one.trial, str(error))
        return
    unlisted = one.checkout.save(f"search-{plan.name}-{one.trial.number}", kept.accuracy)
    # After that, so that a trial which is over is listed.
    study.tell(one.trial, TrialState.COMPLETE, kept.accuracy, seconds=one.seconds)
    best = ranked(study.trials(TrialState.COMPLETE))[0].number == one.trial.number
    _say(one.trial, f"{kept.accuracy:.2%} after {one.seconds:.0f} s{', the best so far' if best else ''}", one.values)
    if unlisted:
        print(f"  dvc exp show will not list it: {unlisted}", flush=True)


def _fail(study: Study, trial: Trial, why: str) -> None:
    study.tell(trial, TrialState.FAIL, reason=why)
    _say(trial, f"failed: {why}", study.space.decode(trial.params))


def _say(trial: Trial, what: str, values: Values) -> None:
    print(f"trial {trial.number}: {what}  ({described(values)})", flush=True)


def described(values: Values) -> str:
    """Write values for a line, without the section of their keys."""
    return ", ".join(f"{key.partition('.')[2]} {value}" for key, value in values.items())


def reason(log: Path) -> str:
    """Find out from the log of `dvc repro` why a stage failed."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() or ["DVC said nothing"]
    begun = [match[1] for line in lines if (match := re.match(r"Running stage '(\w+)':", line))]
    return dvc.reason(begun[-1] if begun else "dvc", lines)


def _check_hope(plan: Plan, study: Study) -> None:
    failed = study.trials(TrialState.FAIL)
    hopeless = len(failed) >= min(HOPELESS, plan.trials)
    if not hopeless or study.trials(TrialState.COMPLETE, TrialState.PRUNED):
        return
    log = plan.folder / f"{failed[-1].number}.log"
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:] if log.exists() else []
    shown = "\n".join(("", f"the end of {log}:", *(f"  {line}" for line in tail))) if tail else ""
    raise Hopeless(
        f"all of the first {len(failed)} trials have failed, the last one because of {failed[-1].user_attrs['reason']}"
        f"{shown}"
    )
