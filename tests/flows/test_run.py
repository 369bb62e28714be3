"""make run: a recipe, a dataset's, or the fallback where no mirror answers."""

from pathlib import Path
from typing import NoReturn

import pytest

from flows import overrides, recipes, run, train
from flows.report import summary
from flows.run import MARKER, falls_back
from flows.runtime import project_lock, server
from flows.runtime.project_lock import ProjectLocked
from flows.runtime.server import Server, ServerError
from tasks.data import fetch
from tasks.harness.section import PARAMS
from tests.support.params import ROOT, shipped_params, write_params


@pytest.fixture
def changes(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be changed in params.yaml for the training that would be run."""
    monkeypatch.setattr(recipes, "FOLDER", ROOT / "recipes")
    made: list[list[str]] = []
    monkeypatch.setattr(run, "run", lambda _, changes: made.append(changes))
    return made


def test_a_recipe_is_written_to_params(changes: list[list[str]]) -> None:
    run.main(["--recipe", "cifar10"])
    assert changes == [recipes.changes("cifar10")]
    assert changes[0][0] == "download.dataset=cifar10"


def test_it_runs_where_there_is_no_git(changes: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    run.main([])
    assert changes == [[]]
    assert summary._git_revision() is None


@pytest.mark.parametrize("name", ["RECIPE", "DATASET"])
def test_make_names_a_recipe_by_the_environment(
    changes: list[list[str]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("RECIPE", "")
    monkeypatch.setenv("DATASET", "")
    monkeypatch.setenv(name, "cifar10")
    run.main([])
    assert changes == [recipes.changes("cifar10")]


def test_a_datasets_recipe_is_written_unless_params_name_the_dataset_already(changes: list[list[str]]) -> None:
    run.main(["--dataset", "digits"])
    write_params(download={"dataset": "digits"})
    run.main(["--dataset", "digits"])
    run.main(["--recipe", "digits"])
    assert changes == [recipes.changes("digits"), [], recipes.changes("digits")]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"DATASET": "digits"}, ["--recipe", "cifar10"]),
        ({"RECIPE": "digits"}, ["--dataset", "cifar10"]),
        ({"DATASET": "digits", "RECIPE": "digits"}, ["--dataset", "cifar10"]),
    ],
)
def test_an_option_wins_over_the_environment(
    variables: dict[str, str], words: list[str], changes: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    run.main(words)
    assert changes == [recipes.changes("cifar10")]


@pytest.mark.parametrize(
    ("variables", "words", "both"),
    [
        ({"RECIPE": "x", "DATASET": "y"}, [], "RECIPE=x and DATASET=y of the environment"),
        ({"RECIPE": "x"}, ["--dataset", "digits", "--recipe", "mnist"], "--recipe mnist and --dataset digits"),
    ],
)
def test_a_recipe_and_a_dataset_are_one_too_many(
    variables: dict[str, str],
    words: list[str],
    both: str,
    changes: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="2"):
        run.main(words)
    assert capsys.readouterr().err.endswith(f": {both} cannot both be chosen: each is a recipe\n")
    assert changes == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--dataset", "mnits"], "make run: DATASET=mnits: no such dataset; known here: fashion_mnist, mnist, "),
        (
            ["--recipe", "mnits"],
            "make run: RECIPE=mnits: there is no .*recipes/mnits.yaml; known here: best, cifar10",
        ),
    ],
)
def test_who_names_what_is_not_there_is_told_what_is(words: list[str], reason: str, changes: list[list[str]]) -> None:
    with pytest.raises(SystemExit, match=f"^{reason}"):
        run.main(words)
    assert changes == []


@pytest.mark.parametrize(("words", "seconds"), [([], 7.5), (["--wait", "30"], 30)])
def test_it_waits_for_another_run_as_long_as_the_option_or_else_the_environment_says(
    words: list[str], seconds: float, changes: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hold(wait_s: float) -> NoReturn:
        raise ProjectLocked(f"one that was waited for {wait_s:g} s")

    monkeypatch.setenv("WAIT", "7.5")
    monkeypatch.setattr(project_lock, "hold", hold)
    said = (
        f"one that was waited for {seconds:g} s is at work in this project; make run WAIT=SECONDS, or --wait SECONDS, "
    )
    with pytest.raises(SystemExit, match=f"^make run: {said}waits for it$"):
        run.main(words)
    with pytest.raises(SystemExit, match=f"^\ntraining failed. {said}waits for it$"):
        train.main(words)


@pytest.mark.parametrize("value", ["soon", "-1", "nan"])
def test_what_is_no_number_of_seconds_is_refused(
    value: str, changes: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run.main([f"--wait={value}"])
    monkeypatch.setenv("WAIT", value)
    with pytest.raises(SystemExit, match="2"):
        run.main([])
    assert capsys.readouterr().err.count(f"{value!r}, by the option or as WAIT, is no number of seconds") == 2
    assert changes == []


def test_it_falls_back_only_where_the_user_has_not_chosen(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "FOLDER", ROOT / "recipes")
    shipped = PARAMS.read_text()
    fallback = overrides.apply(shipped, recipes.changes("digits"))[0]
    edited = overrides.apply(shipped, ["train.epochs=3"])[0]
    for answers in (True, False):
        monkeypatch.setattr(fetch, "answers", lambda _, answers=answers: answers)
        assert falls_back(shipped, shipped) is not answers
        assert not falls_back(shipped, edited)
        assert not falls_back(shipped, fallback), "make run DATASET=digits wrote it"
        assert not falls_back("", shipped), "outside git there is nothing to compare with"
    MARKER.parent.mkdir()
    MARKER.write_text(fallback)
    assert falls_back(shipped, fallback)
    assert not falls_back(shipped, edited)
    assert falls_back(f"{shipped}\nnew: {{}}\n", fallback), "a committed text that this code would refuse"


REFUSED = {
    "typo": "there is no",
    "wrong": "train.epochs = 0",
    "missing": "download.path = 'elsewhere': there is nothing of that name",
    "right": "port 4200 cannot be had",
}


@pytest.mark.parametrize(("recipe", "reason"), REFUSED.items())
def test_params_stay_the_fallbacks_until_a_choice_is_trained_on(
    recipe: str, reason: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def for_run() -> Server:
        if recipe == "right":
            raise ServerError(reason)
        pytest.fail("a server was started")

    Path("recipes").mkdir()
    Path("recipes/wrong.yaml").write_text("train: {epochs: 0}")
    Path("recipes/missing.yaml").write_text("download: {dataset: folder, path: elsewhere}")
    Path("recipes/right.yaml").write_text("train: {epochs: 2}")
    MARKER.parent.mkdir()
    MARKER.write_text(PARAMS.read_text())
    monkeypatch.setattr(train, "flow", lambda: lambda _: [])
    monkeypatch.setattr(server, "for_run", for_run)
    with pytest.raises(SystemExit, match=reason):
        run.main(["--recipe", recipe])
    assert falls_back("committed", PARAMS.read_text())


def test_params_are_the_users_once_a_choice_is_trained_on(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(download={"dataset": "digits"})
    MARKER.parent.mkdir()
    MARKER.write_text(PARAMS.read_text())
    monkeypatch.setattr(train, "flow", lambda: lambda _: [])
    monkeypatch.setattr(server, "for_run", lambda: Server("http://127.0.0.1:9/api"))
    monkeypatch.setattr(Server, "wait_until_gone", lambda *_: False)
    monkeypatch.setattr(summary, "summary", lambda _: "")
    run.main(["--dataset", "digits"])
    assert not falls_back("committed", PARAMS.read_text())


def test_a_run_without_a_choice_trains_on_what_params_say(
    changes: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_committed", shipped_params)
    run.main([])
    assert changes == [[]]
