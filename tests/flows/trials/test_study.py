"""What is known of the trials of a search, whatever ended it."""

from pathlib import Path

import pytest
from optuna.trial import TrialState

from flows.trials.loop import run
from flows.trials.study import ranked
from tests.flows.trials.made import made_checkout, made_plan, made_study


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path) -> None:
    pass


def test_a_journal_that_was_cut_off_is_read_up_to_there() -> None:
    run(made_plan(3), made_study(), [made_checkout()])
    journal = Path("study/journal.log")
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-7])  # a full disk
    Path("study/journal.log.lock").symlink_to("journal.log")  # a kill while it was written to
    study = made_study()
    assert [trial.number for trial in study.trials(TrialState.RUNNING)] == [2]
    study.requeue()
    run(made_plan(4), study, [made_checkout()])
    assert len(made_study().over()) == 4
    assert journal.read_bytes().endswith(b"\n")


def test_of_two_that_are_as_good_the_first_is_the_best() -> None:
    study = made_study()
    run(made_plan(3), study, [made_checkout(lambda _: [0.5])])
    assert [trial.number for trial in ranked(study.over())] == [0, 1, 2]
