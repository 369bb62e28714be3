"""docs/architecture.md: what it names is there, and what it says of a new network or dataset is all that it takes."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from flows import overrides, recipes
from tasks import evaluate, export, train
from tasks.data import datasets
from tasks.data.datasets import Dataset
from tasks.harness.section import PARAMS
from tasks.model import classifier
from tasks.networks import table
from tests.support.params import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text()


def test_every_file_that_it_names_is_there() -> None:
    named = re.findall(r"`((?:tasks|flows|tests|serving|recipes)/[\w./]+)`", PAGE)
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == []
    drawing = PAGE.split("```")[1]
    for package in ("tasks", "flows", "serving"):
        assert [name for name in re.findall(rf"{package}/\w+\.py", drawing) if not (ROOT / name).exists()] == []


def test_every_package_of_tasks_is_in_the_drawing() -> None:
    packages = {path.parent.name for path in (ROOT / "tasks").glob("*/__init__.py")}
    drawing = PAGE.split("```")[1]
    assert [name for name in packages if f"{name}/" not in drawing] == []


class Linear(torch.nn.Module):
    """A network that someone adds."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        height, width, channels = image_shape
        self.layer = torch.nn.Linear(height * width * channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x.flatten(1))
        return logits


def test_a_network_is_a_class_its_row_and_its_name(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.NETWORKS, "Linear", Linear)
    monkeypatch.setattr(train, "NETWORK", "Linear")
    for stage in (train, evaluate, export):
        stage.main()
    model, description = classifier.load()
    assert description.network == "Linear"
    assert isinstance(model.network, Linear)
    assert Path("models/model.onnx").is_file()


def test_a_dataset_is_a_row_and_a_recipe(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="should be one of fashion_mnist, mnist"):
        overrides.apply(PARAMS.read_text(), ["download.dataset=emnist"])
    monkeypatch.setitem(datasets.DATASETS, "emnist", Dataset(format="idx", folder="EMNIST/raw"))
    shutil.copytree(ROOT / "recipes", "recipes")
    Path("recipes/emnist.yaml").write_text("download:\n  dataset: emnist\ntrain:\n  epochs: 7\n")
    text, changes = overrides.apply(PARAMS.read_text(), recipes.changes("emnist"))
    assert changes == ["download.dataset: fashion_mnist -> emnist", "train.epochs: 2 -> 7"]
    assert "dataset: emnist" in text
