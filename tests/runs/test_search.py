"""A whole search on digits: killed, taken up again, and nothing of the project's tree but what it came to."""

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from flows import overrides, recipes
from flows.runtime import clone
from flows.search import FOLDER
from flows.trials import checkout
from tasks.harness.errors import StageError
from tasks.training.record import Epochs
from tests.support.project import QUICK_DIGITS, Command, copy_project

SEARCH = ("python", "-m", "flows", "search")
SPACE = """
  space:
    train.learning_rate: {low: 0.01, high: 0.1, log: true}
    train.mlp.final_relu: {choices: [false, true]}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, in a folder of a repository, with edits that are not committed."""
    root = tmp_path_factory.mktemp("a repository")
    # All cores are for one trial, so that they come one after the other.
    changes = [*QUICK_DIGITS, "train.epochs=2", "search.trials=3", "train.threads=null"]
    project = copy_project(root / "the project", changes)
    shutil.rmtree(project / ".git")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "a project in a folder")):
        subprocess.run(("git", "-c", "user.name=a", "-c", "user.email=a@b", *words), cwd=root, check=True)
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text[: text.index("\n  space:")] + SPACE)
    (project / "tasks/training/mine.py").write_text('"""A module that git does not track yet."""\n')
    (project / "LICENSE").unlink()
    (project / "README.md").write_text("staged")
    subprocess.run(("git", "add", "README.md"), cwd=project, check=True)
    return project


def tree(project: Path) -> list[str]:
    """Return all that git says of the tree, besides the experiments and the recipe."""
    status = "status --porcelain=v2 --branch -uall -- . :!recipes/search-*"
    asked = [status, "worktree list", "branch -a", "stash list", "diff", "diff --cached"]
    return [git(project, *words.split()) for words in asked]


def git(project: Path, *words: str) -> str:
    return subprocess.run(("git", *words), cwd=project, capture_output=True, text=True, check=True).stdout


def running(project: Path) -> list[int]:
    """List the processes in the project or one of its checkouts."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(project)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def searched(project: Path, environment: dict[str, str], command: Command) -> tuple[list[str], str]:
    """The tree before, and what was printed by a search that went on after one that was killed."""
    before = tree(project)
    with subprocess.Popen(SEARCH, cwd=project, env=environment, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if line.startswith("trial 0: "):
                break
        while not list(project.glob(f"{FOLDER}/studies/*/1.log")):
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while running(project) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert running(project) == []
    assert tree(project) == before
    return before, command(*SEARCH, cwd=project).stdout


def test_it_goes_on_where_it_was_killed(searched: tuple[list[str], str]) -> None:
    _, printed = searched
    assert re.search(r"^search \w{8} on digits: 3 trials, of which 1 are over, 1 at a time, ", printed, re.MULTILINE)
    assert "\nbegun again: trial 1\n" in printed
    assert re.findall(r"^trial (\d): \d+\.\d\d% after", printed, re.MULTILINE) == ["2", "3"]


def test_nothing_of_the_tree_has_moved_and_a_recipe_is_new(project: Path, searched: tuple[list[str], str]) -> None:
    before, printed = searched
    (recipe,) = re.findall(r"^recipe +(\S+): make run RECIPE=search-\w+$", printed, re.MULTILINE)
    assert (project / "reports/search.png").read_bytes().startswith(b"\x89PNG")
    assert len((project / "reports/search.csv").read_text().splitlines()) == 4
    assert tree(project) == before
    assert git(project, "ls-files", "--others", "--exclude-standard", "recipes") == f"{recipe}\n"
    assert sorted(path.name for path in (project / FOLDER).iterdir()) == ["lock", "prepare.log", "studies"]


def test_dvc_lists_the_trials_with_their_validation_accuracy(
    project: Path, searched: tuple[list[str], str], command: Command
) -> None:
    shown = json.loads(command("dvc", "exp", "show", "--json", cwd=project).stdout)
    (baseline,) = [row for row in shown if row.get("experiments")]
    found = {each["revs"][0]["name"]: each["revs"][0]["data"] for each in baseline["experiments"]}
    (study,) = [path.name for path in (project / FOLDER / "studies").iterdir()]
    assert set(found) == {f"search-{study}-{number}" for number in (0, 2, 3)}
    for data in found.values():
        (metrics,) = [file["data"] for file in data["metrics"].values()]
        assert list(metrics) == ["validation_accuracy"]
        assert 0.1 < metrics["validation_accuracy"] <= 1
    git(project, "cat-file", "-e", f"{baseline['experiments'][0]['revs'][0]['rev']}:./tasks/training/mine.py")


def test_the_recipe_gives_the_best_trial_which_dvc_knows(
    project: Path, searched: tuple[list[str], str], command: Command
) -> None:
    _, printed = searched
    (name,) = re.findall(r"RECIPE=(\S+)", printed)
    accuracy, *_ = re.findall(r"^ +\d+ +(\S+)%  ", printed, re.MULTILINE)
    before = (project / "params.yaml").read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        overrides.write(recipes.changes(name))
        answered = command("dvc", "repro", "--single-item", "download", "transform", "train", cwd=project).stdout
        epochs = Epochs.read()
    (project / "params.yaml").write_text(before)
    assert answered.count("is cached - skipping run") == 3
    assert f"{epochs.last.accuracy:.2%}" == f"{accuracy}%"


def test_a_finished_one_says_again_what_it_came_to(
    project: Path, searched: tuple[list[str], str], command: Command
) -> None:
    _, printed = searched
    again = command(*SEARCH, cwd=project).stdout
    assert "3 trials, of which 3 are over" in again
    assert again[again.index("\n\n") :] == printed[printed.index("\n\n") :]


def test_images_that_git_does_not_track_are_linked_and_stay(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    for name in ("data/inbox/a cat/1.png", "mixed/tracked.png", "mixed/b/other.png", "weights.pth"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    git(project, "add", "mixed/tracked.png")
    made = checkout.make(
        tmp_path / "checkout", tmp_path / "cache", ["data/inbox", "mixed", "weights.pth", "/elsewhere"]
    )
    try:
        for name in ("data/inbox/a cat/1.png", "mixed/tracked.png", "mixed/b/other.png", "weights.pth"):
            assert (made.folder / name).read_text() == name
        assert not (made.folder / "mixed/tracked.png").is_symlink(), "git has it"
        assert (made.folder / "README.md").read_text() == "staged"
        assert not (made.folder / "LICENSE").exists()
        clone.remove(made.git)
        assert sorted(path.name for path in Path("mixed").rglob("*.png")) == ["other.png", "tracked.png"]
        assert [path.name for path in Path("data/inbox/a cat").iterdir()] == ["1.png"]
        with pytest.raises(
            StageError, match=r"^'\.\./images' leads out of the project: a search needs it from /, as /"
        ):
            checkout.make(tmp_path / "checkout", tmp_path / "cache", ["../images"])
    finally:
        git(project, "rm", "-q", "--cached", "mixed/tracked.png")


def test_without_a_commit_it_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with pytest.raises(StageError, match="a search needs the project in a git repository with a commit: git init"):
            checkout.make(tmp_path / "checkout", tmp_path / "cache", [])
        git(tmp_path, "init", "-q")
