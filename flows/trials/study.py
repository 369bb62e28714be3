"""The study of a search: what was tried and what came of it, in Optuna's journal, which survives a `kill -9`.

Only one process writes it: who opens it holds the lock of the search.
"""

import hashlib
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from flows.trials.space import Space

RANDOM = 8  # trials before the sampler learns from what there is
UNPRUNED = 4  # trials that go to their end before others are compared with them
INSTEAD_OF = "instead_of"  # of a trial: the number of the one that was killed


class Study:
    """The trials of a search.

    Args:
        journal: a file, which need not be there yet.
        warm_up: the first epoch after which a trial may be given up.
    """

    def __init__(self, journal: Path, space: Space, seed: int, warm_up: int) -> None:
        self.space = space
        self.seed = seed
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        _mend(journal)
        self.optuna = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name="search",
            load_if_exists=True,
            direction="maximize",
            pruner=MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=warm_up),
        )
        if not self.optuna.trials and (now := space.begin()):
            self.optuna.enqueue_trial(now)  # no search ends with less than it began with

    def requeue(self) -> list[int]:
        """Give up the trials that were running when a search was stopped, have them run again, and name them.

        So are those that failed, where none has succeeded: what made them fail was not what they tried.
        """
        again = [trial for trial in self.trials(TrialState.RUNNING) if trial.number not in self._replaced()]
        if not self.trials(TrialState.COMPLETE, TrialState.PRUNED):
            again += self.trials(TrialState.FAIL)
        for trial in again:
            self.optuna.enqueue_trial(trial.params, user_attrs={INSTEAD_OF: trial.number})
        for trial in self.optuna.get_trials(states=(TrialState.RUNNING,)):
            self.optuna.tell(trial.number, state=TrialState.FAIL)
        return [trial.number for trial in again]

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """List the trials in one of the states, without those that another one runs instead of."""
        replaced = self._replaced()
        return [trial for trial in self.optuna.get_trials(states=states) if trial.number not in replaced]

    def over(self) -> list[FrozenTrial]:
        return self.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

    def ask(self) -> Trial:
        """Begin the next trial.

        What it tries depends on the seed and on the trials before it, and not on how often the search was stopped.
        """
        begun = len(self.over()) + len(self.trials(TrialState.RUNNING))
        digest = hashlib.sha256(f"{self.seed} {begun}".encode()).digest()
        self.optuna.sampler = TPESampler(seed=int.from_bytes(digest[:4]), n_startup_trials=RANDOM)
        return self.optuna.ask(self.space.distributions())

    def tell(self, trial: Trial, state: TrialState, accuracy: float | None = None, **attributes: Any) -> None:
        """End a trial; `attributes` are kept with it."""
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        self.optuna.tell(trial, accuracy, state=state)

    def _replaced(self) -> set[int]:
        return {trial.user_attrs[INSTEAD_OF] for trial in self.optuna.trials if INSTEAD_OF in trial.user_attrs}


def ranked(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Sort complete trials, the best first; of two that are as good, the one that came first."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    return sorted(complete, key=lambda trial: (-(trial.value or 0), trial.number))


def _mend(journal: Path) -> None:
    """Cut off a line that a full disk has left unfinished, and the lock of a process that was killed."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.exists():
        data = journal.read_bytes()
        if not data.endswith(b"\n"):
            with journal.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)
