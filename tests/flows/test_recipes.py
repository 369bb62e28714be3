"""Recipes: an overlay of params.yaml for each dataset."""

from pathlib import Path

import pytest

from flows import overrides, recipes
from tasks.data.datasets import DATASETS
from tasks.harness.errors import ParamsError
from tests.support.params import ROOT, shipped_params


@pytest.fixture(autouse=True)
def in_an_empty_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_dataset_has_a_recipe_of_its_name_that_params_accept(dataset: str, shipped: None) -> None:
    changes = recipes.changes(dataset)
    assert changes[0] == f"download.dataset={dataset}"
    text, _ = overrides.apply(shipped_params(), changes)
    assert f"dataset: {dataset} " in text


def test_all_recipes_set_the_same_keys_so_that_none_leaves_what_another_set(shipped: None) -> None:
    keys = {name: [change.partition("=")[0] for change in recipes.changes(name)] for name in recipes.known()}
    assert len({tuple(of_one) for of_one in keys.values()}) == 1, keys


def test_the_recipe_of_the_shipped_dataset_changes_nothing(shipped: None) -> None:
    assert overrides.apply(shipped_params(), recipes.changes("fashion_mnist")) == (shipped_params(), [])


def test_a_recipe_changes_what_it_says_and_nothing_else() -> None:
    Path("recipes/mine.yaml").write_text("train:\n  epochs: 7\n  threads: null\ntransform:\n  image_size: [8, 9]\n")
    text, changes = overrides.apply(shipped_params(), recipes.changes("mine"))
    assert changes == ["train.epochs: 6 -> 7", "transform.image_size: [64, 64] -> [8, 9]"]
    old, new = shipped_params().splitlines(), text.splitlines()
    assert len([line for line in new if line not in old]) == 2


def test_a_recipe_starts_from_its_base_and_that_from_its_own() -> None:
    Path("recipes/mine.yaml").write_text("base: quick\ntrain: {epochs: 7}\n")
    Path("recipes/quick.yaml").write_text("base: slow\ntrain: {epochs: 1, seed: 2}\n")
    Path("recipes/slow.yaml").write_text("train: {epochs: 50, threads: 1}\n")
    assert recipes.changes("mine") == ["train.epochs=7", "train.threads=1", "train.seed=2"]


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ("none", r"^recipes/mine.yaml: base: none: there is no recipes/none.yaml; known here: mine, other$"),
        ("[1]", r"^recipes/mine.yaml: base: \[1\]: there is no"),
        ("mine", r"^recipes/mine.yaml: base: mine -> mine goes round in a circle$"),
        ("other", r"^recipes/mine.yaml: base: mine -> other -> mine goes round in a circle$"),
    ],
)
def test_a_base_that_is_none_is_refused(base: str, reason: str) -> None:
    Path("recipes/mine.yaml").write_text(f"base: {base}\n")
    Path("recipes/other.yaml").write_text("base: mine\n")
    with pytest.raises(ParamsError, match=reason):
        recipes.changes("mine")


def test_a_name_stays_a_name() -> None:
    Path("recipes/mine.yaml").write_text('download:\n  path: "1e3"\n  csv: {file: "a: b"}\n')
    assert recipes.changes("mine") == ['download.path="1e3"', 'download.csv.file="a: b"']


@pytest.mark.parametrize(
    ("text", "reason"),
    [("- 1", r"recipes/mine.yaml holds \[1\]: it should be sections"), ("a: [", "recipes/mine.yaml is not valid YAML")],
)
def test_a_file_that_is_no_overlay_is_refused(text: str, reason: str) -> None:
    Path("recipes/mine.yaml").write_text(text)
    with pytest.raises(ParamsError, match=reason):
        recipes.changes("mine")


@pytest.mark.parametrize("name", ["mine", "../params", ""])
def test_an_unknown_recipe_names_the_known_ones(name: str) -> None:
    Path("params.yaml").write_text("{}")
    Path("recipes/other.yaml").write_text("{}")
    with pytest.raises(ParamsError, match=f"^RECIPE={name}: there is no recipes/.*; known here: other$"):
        recipes.changes(name)


def test_an_unknown_dataset_names_the_known_ones() -> None:
    with pytest.raises(ParamsError, match="DATASET=mnits: no such dataset; known here: fashion_mnist, mnist, "):
        recipes.for_dataset("mnits")
