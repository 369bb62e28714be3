"""Recipes: an overlay of params.yaml for each dataset."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows import overrides, recipes
from flows.recipes import About
from tasks.data.datasets import DATASETS
from tasks.harness.errors import ParamsError
from tasks.training import packages
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


def test_the_recipe_transfer_takes_the_weights_from_where_their_package_brings_them(shipped: None) -> None:
    values = dict(change.split("=", 1) for change in recipes.changes("transfer"))
    package = packages.PACKAGES[values["train.transfer.sha256"]]
    assert values["train.transfer.weights"] == str(packages.FOLDER / package.file)


def test_a_recipe_changes_what_it_says_and_nothing_else() -> None:
    Path("recipes/mine.yaml").write_text("train:\n  epochs: 7\n  threads: null\ntransform:\n  image_size: [8, 9]\n")
    text, changes = overrides.apply(shipped_params(), recipes.changes("mine"))
    assert changes == ["train.epochs: 5 -> 7", "transform.image_size: [64, 64] -> [8, 9]"]
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


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml")))
def test_every_recipe_says_what_it_is_and_in_no_comment_above_it(name: str, shipped: None) -> None:
    about = recipes.about(name)
    assert about is not None
    assert about.summary.endswith(".")
    assert "\n" not in about.summary
    text = Path(f"recipes/{name}.yaml").read_text()
    assert text.startswith("about:\n  summary: >-\n    ")
    assert "\n  reaches:" in text


def test_what_a_recipe_says_of_itself_is_no_value_and_not_its_bases() -> None:
    Path("recipes/mine.yaml").write_text("about: {summary: Mine., reaches: null}\nbase: other\ntrain: {epochs: 7}\n")
    Path("recipes/other.yaml").write_text("about: {summary: Other., reaches: null}\n")
    Path("recipes/silent.yaml").write_text("base: mine\n")
    assert recipes.changes("mine") == recipes.changes("silent") == ["train.epochs=7"]
    assert recipes.about("mine") == About(summary="Mine.", reaches=None)
    assert recipes.about("silent") is None


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ("Mine.", r"about = 'Mine\.': input should be"),
        ("{summary: Mine.}", r"about\.reaches: missing"),
        ("{summary: Mine., reaches: {accuracy: [0.9, 1.2], n: 1, hardware: a, train_s: 1}}", r"accuracy\.1 = 1\.2: "),
        ("{summary: Mine., reaches: null, by: me}", r"about\.by: unknown key; known here: summary, reaches"),
    ],
)
def test_what_a_recipe_says_of_itself_is_checked(about: str, reason: str) -> None:
    Path("recipes/mine.yaml").write_text(f"about: {about}\n")
    with pytest.raises(ParamsError, match=rf"^recipes/mine\.yaml is refused:\n  .*{reason}"):
        recipes.about("mine")


@pytest.mark.parametrize("name", ["fashion_mnist", "quickstart", "digits", "csv"])
def test_params_have_the_recipe_that_was_written_to_them(name: str, shipped: None) -> None:
    text, _ = overrides.apply(shipped_params(), recipes.changes(name))
    assert recipes.nearest(YAML(typ="safe").load(text)) == recipes.Nearest(name, recipes.about(name), [])


def test_the_nearest_recipe_is_the_one_that_fewest_values_differ_from() -> None:
    assert recipes.nearest({"train": {"epochs": 7}}) is None
    Path("recipes/a.yaml").write_text("train: {epochs: 1, seed: 2, threads: 3}\n")
    Path("recipes/b.yaml").write_text("train: {epochs: 1, seed: 0}\n")
    found = recipes.nearest({"train": {"epochs": 7, "seed": 0}})
    assert found == recipes.Nearest("b", None, [("train.epochs", 1, 7)])
    Path("recipes/c.yaml").write_text("train: {epochs: 7}\n")
    Path("recipes/d.yaml").write_text("base: c\ntrain: {seed: 0}\n")
    assert recipes.nearest({"train": {"epochs": 7, "seed": 0}}) == recipes.Nearest("d", None, [])


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
