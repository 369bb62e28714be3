"""docs/architecture.md: what it names is there, and what it says of a new network or dataset is all that it takes."""

import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flows import overrides, recipes
from tasks import evaluate, export, train
from tasks.data import datasets
from tasks.data.datasets import Dataset
from tasks.harness.section import PARAMS
from tasks.model import classifier
from tasks.networks import from_timm, table
from tasks.params.train import OWN, Train
from tests.support.params import ROOT, write_params

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

    def __init__(self, image_shape: tuple[int, int, int], classes: int, channels: list[int], **_: object) -> None:
        super().__init__()
        height, width, colours = image_shape
        self.layer = torch.nn.Linear(height * width * colours, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x.flatten(1))
        return logits


def test_a_network_is_a_class_its_row_and_its_section(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuple(table.NETWORKS) == OWN
    builders: dict[str, Callable[..., object]] = {**table.NETWORKS, "timm": from_timm.create}
    for name, build in builders.items():
        options = set(inspect.signature(build).parameters) - {"name", "image_shape", "classes"}
        assert options == set(Train.model_fields[name].annotation.model_fields)  # type: ignore[union-attr]
    monkeypatch.setitem(table.NETWORKS, "cnn", Linear)
    write_params(train={"network": "cnn"})
    for stage in (train, evaluate, export):
        stage.main()
    model, description = classifier.load()
    assert description.network == "cnn"
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
