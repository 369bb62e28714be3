"""The flow on a schedule: what its form allows, and what a choice in it changes."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from flows import recipes, retraining
from flows.runtime import labels, project_lock
from flows.runtime.project_lock import ProjectLocked
from tasks.data.datasets import DATASETS
from tasks.dvc import StageRun
from tests.support.params import ROOT


@pytest.fixture(autouse=True)
def tagged(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """How often the run was tagged."""
    calls: list[bool] = []
    monkeypatch.setattr(labels, "tag", lambda: calls.append(True))
    return calls


def test_the_form_offers_every_dataset_and_the_bounds_of_params() -> None:
    form = retraining.retraining.parameters.properties
    assert form["dataset"]["anyOf"][0] == {"type": "string", "enum": list(DATASETS)}
    assert form["epochs"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 10_000}


def test_a_run_that_may_not_begin_fails_with_its_sentence(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retraining, "get_run_logger", lambda: logging.getLogger("test"))
    Path("data/raw/mine").mkdir(parents=True)
    state = retraining.retraining.fn()
    assert (state.name, str(state.message)[:22]) == ("Failed", "data/raw holds 'mine',")


def test_a_run_that_is_skipped_names_the_run_at_work_and_has_its_tags(
    checkout: Path, tagged: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hold() -> NoReturn:
        raise ProjectLocked("the run with pid 7")

    monkeypatch.setattr(retraining, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(project_lock, "hold", hold)
    state = retraining.retraining.fn()
    assert (state.name, state.message) == ("Skipped", "Skipped: the run with pid 7 is at work")
    assert tagged == [True]


def test_a_dataset_is_trained_on_by_its_recipe(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []

    def training(changes: list[str]) -> list[StageRun]:
        made.append(changes)
        return []

    monkeypatch.setattr(retraining, "training", SimpleNamespace(fn=training))
    monkeypatch.setattr(retraining, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(recipes, "FOLDER", ROOT / "recipes")
    retraining.retraining.fn(dataset="digits", epochs=3)
    retraining.retraining.fn(dataset="fashion_mnist", seed=1)
    assert made == [[*recipes.changes("digits"), "train.epochs=3"], ["train.seed=1"]]
