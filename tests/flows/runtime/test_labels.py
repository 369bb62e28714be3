"""What Prefect's UI tells runs apart by."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.client.schemas.actions import ArtifactCreate, WorkPoolCreate

from flows import retraining, training
from flows.runtime import labels
from tests.support.params import ROOT


@pytest.mark.parametrize(
    ("parameters", "dataset"),
    [
        ({}, "fashion_mnist"),
        ({"changes": None}, "fashion_mnist"),
        ({"changes": ["train.epochs=1", "params.yaml:download.dataset=digits"]}, "digits"),
        ({"recipe": "mnist", "epochs": 1}, "mnist"),
        ({"recipe": "best"}, "fashion_mnist"),
        ({"recipe": None, "epochs": 1}, "fashion_mnist"),
    ],
)
def test_a_run_is_named_after_its_dataset_and_its_folder(
    parameters: dict[str, object], dataset: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "recipes", "recipes")
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.com")
    for words in (("init", "-q"), ("add", "params.yaml"), ("commit", "-qm", "start")):
        subprocess.run((*git, *words), check=True)
    monkeypatch.setattr(labels, "flow_run", SimpleNamespace(parameters=parameters))
    assert labels.run_name() == f"{dataset} in {workspace.name}"
    assert training.training.flow_run_name is retraining.retraining.flow_run_name is labels.run_name


def test_a_run_that_is_about_to_be_refused_is_named_after_its_folder(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "flow_run", SimpleNamespace(parameters={"changes": ["train.epochs=0"]}))
    assert labels.run_name() == workspace.name


@pytest.mark.parametrize("name", ["My project_2", "daten-größe", "数据", "a&b <50%>"])
def test_two_checkouts_of_one_name_have_keys_of_their_own_that_prefect_allows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []
    for folder in (tmp_path / "a" / name, tmp_path / "b" / name):
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        keys.append(labels.key("report"))
        ArtifactCreate(key=keys[-1], type="markdown", data="")
        WorkPoolCreate(name=labels.checkout(), type="process")
    assert keys[0] != keys[1]


def test_checkouts_of_two_machines_at_the_same_path_have_names_of_their_own_that_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clone() -> set[str]:
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(tmp_path / "pets", ignore_errors=True)
        subprocess.run(("git", "clone", "-q", str(tmp_path / "first"), str(tmp_path / "pets")), check=True)
        monkeypatch.chdir(tmp_path / "pets")
        with ThreadPoolExecutor(8) as processes:  # which come to it at once
            return set(processes.map(lambda _: labels.checkout(), range(8)))

    (tmp_path / "first").mkdir()
    monkeypatch.chdir(tmp_path / "first")
    outside_git = labels.checkout()
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.com")
    for words in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "start")):
        subprocess.run((*git, *words), check=True)
    assert labels.checkout() == labels.checkout() != outside_git
    names = [clone(), clone()]
    assert [len(found) for found in names] == [1, 1]
    assert len(set().union(*names)) == 2
    assert subprocess.run(("git", "status", "--porcelain"), capture_output=True, check=True).stdout == b""
    shutil.copytree(tmp_path / "pets", tmp_path / "copy/pets")  # with all that is in it
    monkeypatch.chdir(tmp_path / "copy/pets")
    assert labels.checkout() not in set().union(*names)


def test_a_run_keeps_the_tags_that_it_has(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, list[str]]] = []
    client = SimpleNamespace(update_flow_run=lambda run, tags: sent.append((run, tags)))
    monkeypatch.setattr(labels, "get_client", lambda sync_client: nullcontext(client))
    for changes in (["download.dataset=digits"], ["train.epochs=0"]):
        run = SimpleNamespace(id="7", tags=["nightly"], parameters={"changes": changes})
        monkeypatch.setattr(labels, "flow_run", run)
        labels.tag()
    assert sent == [("7", sorted([*known, labels.checkout()])) for known in (["nightly", "digits"], ["nightly"])]
