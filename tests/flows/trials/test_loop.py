"""The trials of a search: what is tried, given up, begun again and counted."""

import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState

from flows.trials import loop
from flows.trials.checkout import STAGES
from flows.trials.loop import Hopeless, run
from flows.trials.study import Study, ranked
from tasks.params.search import Range
from tests.flows.trials.made import EPOCHS, Made, best_at_a_tenth, made_checkout, made_plan, made_space, made_study


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOOK_AGAIN_S", 0.01)


def tried(study: Study) -> list[dict[str, object]]:
    return [study.space.decode(trial.params) for trial in study.over()]


def test_it_tries_what_params_have_and_then_what_may_be_better(capsys: pytest.CaptureFixture[str]) -> None:
    study, checkout = made_study(), made_checkout()
    run(made_plan(20), study, [checkout])
    assert len(study.over()) == 20
    assert tried(study)[0] == {"train.learning_rate": 0.01, "train.batch_size": 4, "train.augment.flip": False}
    best, *_ = ranked(study.over())
    assert 0.05 < best.params["train.learning_rate"] < 0.2
    complete = study.trials(TrialState.COMPLETE)
    assert checkout.saved == [f"search-abc-{trial.number}" for trial in complete]
    printed = capsys.readouterr().out
    assert printed.startswith("trial 0: 91.74% after 0 s, the best so far  (learning_rate 0.01, batch_size 4, ")
    assert printed.count("\n") == 20


def test_the_seed_decides_what_is_tried() -> None:
    found = []
    for seed in (0, 0, 1):
        study = made_study(seed=seed)
        run(made_plan(10), study, [made_checkout()])
        found.append(tried(study))
        Path("study/journal.log").unlink()
    assert found[0] == found[1] != found[2]


class Killed(BaseException):
    """As by `kill -9`."""


class Fragile(Made):
    """A checkout whose search is killed as soon as the third training has begun."""

    def start(self, log: Path, stages: Iterable[str] = STAGES, force: bool = False) -> "subprocess.Popen[str]":
        if len(self.tried) == 3:
            raise Killed
        return super().start(log, stages, force)


def test_a_search_that_was_killed_goes_on_with_what_an_undisturbed_one_tries() -> None:
    undisturbed = made_study()
    run(made_plan(10), undisturbed, [made_checkout()])
    wanted = tried(undisturbed)
    Path("study/journal.log").unlink()
    for _ in range(2):
        study = made_study()
        study.requeue()
        with pytest.raises(Killed):
            run(made_plan(100), study, [Fragile(**vars(made_checkout()))])
    study = made_study()
    (last,) = study.trials(TrialState.RUNNING)
    assert study.requeue() == [last.number]
    assert study.requeue() == [], "only once"
    run(made_plan(10), study, [made_checkout()])
    in_order = sorted(study.over(), key=lambda trial: trial.user_attrs.get("instead_of", trial.number))
    assert [study.space.decode(trial.params) for trial in in_order] == wanted


def test_what_is_worse_than_the_others_is_given_up_and_its_training_ended(capsys: pytest.CaptureFixture[str]) -> None:
    study = made_study()
    run(made_plan(8), study, [made_checkout()])
    process: list[subprocess.Popen[str]] = []

    class Endless(Made):
        def start(self, log: Path, stages: Iterable[str] = STAGES, force: bool = False) -> "subprocess.Popen[str]":
            process.append(super().start(log, stages, force))
            return process[-1]

    checkout = Endless(**vars(made_checkout(lambda _: [0.1, 0.1], "sh", "-c", "read line || exit 1")))
    (checkout.checkpoints / "abc.pth").touch()
    run(made_plan(9), study, [checkout])
    assert study.over()[-1].state is TrialState.PRUNED
    assert process[0].poll() == 1, "its lifeline was closed"
    assert not (checkout.checkpoints / "abc.pth").exists()
    assert re.search(r"trial 8: given up after epoch 2 at 10\.00%  \(learning_rate ", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("epochs", "command"),
    [(EPOCHS, ["sleep", "0.2"]), (3, ["true"])],
    ids=["as planned", "early, by train.patience"],
)
def test_the_last_epoch_is_no_moment_to_give_up(epochs: int, command: list[str]) -> None:
    study = made_study()
    run(made_plan(6), study, [made_checkout(lambda _: [0.2] * (epochs - 1) + [0.9] * (EPOCHS - epochs + 1))])
    run(made_plan(7), study, [made_checkout(lambda _: [0.3] * epochs, *command)])
    assert (study.over()[-1].state, study.over()[-1].value) == (TrialState.COMPLETE, 0.3)


def test_a_trial_that_fails_is_told_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    study = made_study()
    run(made_plan(8), study, [made_checkout(lambda train: best_at_a_tenth(train) if train.batch_size > 2 else [])])
    states = [trial.state for trial in study.over()]
    assert TrialState.FAIL in states
    assert len(states) == 8
    failed = study.trials(TrialState.FAIL)[0]
    assert f"trial {failed.number}: failed: train: it does not learn  (learning_rate " in capsys.readouterr().out
    assert study.requeue() == [], "others have succeeded, so it was what it tried"


def test_where_the_first_fail_the_search_ends_and_the_next_one_begins_them_again() -> None:
    study = made_study()
    with pytest.raises(
        Hopeless,
        match=r"(?s)^all of the first 3 trials have failed, the last one because of "
        r"train: it does not learn\nthe end of study/2.log:\n  Running stage 'train':\n  train: it d",
    ):
        run(made_plan(8), study, [made_checkout(lambda _: [])])
    assert study.requeue() == [0, 1, 2]
    run(made_plan(8), study, [made_checkout()])
    assert [trial.number for trial in study.over()] == list(range(3, 11))


def test_the_only_trial_fails() -> None:
    with pytest.raises(Hopeless, match="all of the first 1 trials"):
        run(made_plan(1), made_study(), [made_checkout(lambda _: [])])


def test_values_that_do_not_go_together_are_a_failed_trial(capsys: pytest.CaptureFixture[str]) -> None:
    ranges = {f"train.augment.{key}": Range(choices=[0.0, 1.0]) for key in ("mixup", "cutmix")}
    study, checkout = made_study(made_space(**ranges)), made_checkout()
    run(made_plan(12), study, [checkout])
    failed = study.trials(TrialState.FAIL)
    assert failed
    assert len(checkout.tried) == 12 - len(failed)
    assert "mixup and cutmix should not both be above 0" in capsys.readouterr().out


def test_a_trial_that_takes_too_long_is_ended() -> None:
    study, checkout = made_study(), made_checkout(best_at_a_tenth, "sh", "-c", "read line")
    plan = loop.Plan(**vars(made_plan(1)) | {"time_limit_s": 0.1})
    with pytest.raises(Hopeless, match=r"it took longer than flow\.time_limit_s allows, 0\.1 s"):
        run(plan, study, [checkout])


def test_whatever_ends_the_search_ends_its_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[subprocess.Popen[str]] = []

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    class Long(Made):
        def start(self, log: Path, stages: Iterable[str] = STAGES, force: bool = False) -> "subprocess.Popen[str]":
            running.append(super().start(log, stages, force))
            return running[-1]

    lines = "sh", "-c", "read line"
    checkouts = [Long(**vars(made_checkout(best_at_a_tenth, *lines))) for _ in range(2)]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=time.monotonic, sleep=interrupt))
    study = made_study()
    with pytest.raises(KeyboardInterrupt):
        run(made_plan(8), study, checkouts)
    assert len(running) == 2
    assert all(process.poll() is not None for process in running)
    assert study.requeue() == [0, 1]


def test_trials_run_side_by_side_in_a_checkout_each() -> None:
    study, began = made_study(), time.monotonic()
    checkouts = [made_checkout(best_at_a_tenth, "sleep", "0.5") for _ in range(4)]
    run(made_plan(4), study, checkouts)
    assert time.monotonic() - began < 1.5
    assert [len(checkout.tried) for checkout in checkouts] == [1] * 4
