"""What a search came to, and its recipe."""

import csv
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows import overrides, recipes
from flows.trials import outcome
from flows.trials.loop import run
from flows.trials.picture import picture
from flows.trials.study import Study, ranked
from tasks.harness.section import PARAMS
from tests.flows.trials.made import best_at_a_tenth, made_checkout, made_plan, made_space, made_study
from tests.support.params import ROOT

BAD = 8  # the batch size with which trainings fail


@pytest.fixture
def study(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Twelve trials, some of which were given up and some of which failed."""
    monkeypatch.setattr("flows.trials.loop.LOOK_AGAIN_S", 0.01)
    shutil.copytree(ROOT / "recipes", "recipes")
    study = made_study()
    run(made_plan(12), study, [made_checkout(lambda train: [] if train.batch_size == BAD else best_at_a_tenth(train))])
    assert {row["outcome"] for row in outcome.rows(study)} == {"complete", "given up", "failed"}
    return study


def test_the_table_lists_the_best_first_and_the_file_all(study: Study) -> None:
    rows = outcome.rows(study)
    head, first, second, *_ = outcome.table(rows).splitlines()
    assert head.split() == [
        "trial",
        "validation",
        "accuracy",
        "epochs",
        "seconds",
        "learning_rate",
        "batch_size",
        "augment.flip",
    ]
    best = ranked(study.over())[0]
    assert first.split()[:3] == [str(best.number), f"{best.value:.2%}", "4"]
    assert float(first.split()[1][:-1]) >= float(second.split()[1][:-1])
    read = list(csv.DictReader(outcome.table_csv(rows).splitlines()))
    assert sorted(int(row["trial"]) for row in read) == list(range(12))
    assert float(read[0]["validation_accuracy"]) == best.value
    assert {row["validation_accuracy"] for row in read if row["outcome"] != "complete"} == {""}


def test_the_picture_has_a_panel_for_each_key(study: Study) -> None:
    figure = picture(study)
    figure.canvas.draw()
    history, *panels = figure.axes
    assert [axis.get_xlabel() for axis in panels] == list(study.space.ranges)
    assert [axis.get_xscale() for axis in panels] == ["log", "linear", "linear"]
    assert f"Trial {ranked(study.over())[0].number} is the best" in history.get_title()


@pytest.mark.parametrize("dataset", ["digits", "gone"])
def test_its_recipe_gives_the_parameters_of_the_best_trial_exactly(study: Study, dataset: str) -> None:
    if dataset == "gone":
        shutil.rmtree("recipes")
        Path("recipes").mkdir()
    text = PARAMS.read_text()
    changed = {"train.threads": 3}
    Path("recipes/search-abc.yaml").write_text(outcome.recipe(study, text, changed, "abc", dataset))
    about = recipes.about("search-abc")
    assert about is not None
    best = ranked(study.over())[0]
    came_to = f"trial {best.number}, {best.value:.2%} of the validation images."
    assert about.summary == f"The best of 12 trials of make search, study abc: {came_to}"
    after, _ = overrides.apply(text, recipes.changes("search-abc"))
    wanted = dict(overrides.flatten(YAML(typ="safe").load(text))) | changed | study.space.decode(best.params)
    assert dict(overrides.flatten(YAML(typ="safe").load(after))) == wanted


def test_a_recipe_that_somebody_wrote_or_changed_stays(workspace: Path) -> None:
    Path("recipes").mkdir()
    kept = Path("kept.yaml")
    assert outcome.keep("one", "abc", kept) == Path("recipes/search-abc.yaml")
    assert outcome.keep("two", "abc", kept) == Path("recipes/search-abc.yaml"), "it is as the search wrote it"
    Path("recipes/search-abc.yaml").write_text("mine")
    assert outcome.keep("three", "abc", kept) == Path("recipes/search-abc-2.yaml")
    assert outcome.keep("three", "abc", kept) == Path("recipes/search-abc-2.yaml")
    found = {path.name: path.read_text() for path in Path("recipes").iterdir()}
    assert found == {"search-abc.yaml": "mine", "search-abc-2.yaml": "three"}


def test_a_picture_of_one_trial(workspace: Path) -> None:
    study = made_study(made_space())
    run(made_plan(1), study, [made_checkout()])
    picture(study).canvas.draw()
