"""The whole pipeline on the real data, as shipped and then by the quickstart's recipe; needs DATA_MIRROR."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import classification_report, confusion_matrix
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import FashionMNIST
from torchvision.transforms import ToTensor

from tasks.prepared import Split
from tests.support import quickstart
from tests.support.project import Command, copy_project

pytestmark = pytest.mark.skipif(not os.environ.get("DATA_MIRROR"), reason="DATA_MIRROR is not set")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("fashion_mnist"))


@pytest.fixture(scope="module")
def mirror() -> str:
    named = os.environ["DATA_MIRROR"]
    return named if "://" in named else str(Path(named).absolute())


@pytest.fixture(scope="module")
def shipped(project: Path, command: Command, mirror: str) -> float:
    """The accuracy of what `make run` trains."""
    printed = command("python", "-m", "flows", "run", cwd=project, DATA_MIRROR=mirror).stdout
    assert "because no mirror answered" not in printed
    accuracy: float = json.loads((project / "reports/metrics.json").read_text())["accuracy"]
    return accuracy


@pytest.fixture(scope="module", autouse=True)
def printed(project: Path, command: Command, mirror: str, shipped: float) -> str:
    """What `make run RECIPE=quickstart` prints after it."""
    printed = command("python", "-m", "flows", "run", "--recipe", "quickstart", cwd=project, DATA_MIRROR=mirror).stdout
    assert "[51264/54000]" in printed
    return printed


@pytest.fixture(scope="module")
def predicted(project: Path) -> tuple[Tensor, Tensor]:
    """Logits and labels of the test set as a reader of the quickstart would compute them from our two files."""
    dataset = FashionMNIST(project / "data/raw", train=False, download=False, transform=ToTensor())
    model = quickstart.NeuralNetwork()
    model.load_state_dict(torch.load(project / "models/model.pth", weights_only=True))
    with torch.no_grad():
        batches = [(model(x), y) for x, y in DataLoader(dataset, batch_size=1000)]
    return torch.cat([logits for logits, _ in batches]), torch.cat([labels for _, labels in batches])


def test_what_is_shipped_is_as_accurate_as_the_readme_says(shipped: float) -> None:
    assert shipped >= 0.915  # the mean of four seeds is 0.92


def test_accuracy_is_where_the_published_runs_of_this_recipe_are(project: Path) -> None:
    assert 0.62 <= json.loads((project / "reports/metrics.json").read_text())["accuracy"] <= 0.67


def test_what_the_recipe_leaves_behind_is_said_and_no_line_is_wide(printed: str) -> None:
    table = printed[printed.index("\naccuracy   ") :].splitlines()
    weak, calibration = (line for line in table if line.startswith("look at    "))
    assert re.search(r"weak classes, .*: (Sandal|Shirt) \d\.\d%", weak)
    assert calibration.startswith("look at    calibration error above 10%: ")
    assert max(map(len, table)) <= 80


def test_metrics_are_those_of_the_quickstarts_class_on_torchvisions_images(
    project: Path, predicted: tuple[Tensor, Tensor]
) -> None:
    logits, labels = predicted
    metrics = json.loads((project / "reports/evaluation.json").read_text())
    names = FashionMNIST.classes
    theirs = classification_report(labels, logits.argmax(1), target_names=names, output_dict=True, zero_division=0)
    assert metrics["accuracy"] == theirs["accuracy"]
    assert metrics["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    for name in names:
        expected = {key.replace("-score", ""): value for key, value in theirs[name].items()}
        assert metrics["per_class"][name] == pytest.approx(expected)
    assert metrics["confusion_matrix"] == confusion_matrix(labels, logits.argmax(1)).tolist()


def test_prepared_images_are_torchvisions(project: Path) -> None:
    folder = project / "data/prepared"
    test = Split.read("test", folder)
    theirs = FashionMNIST(project / "data/raw", train=False)
    assert np.array_equal(test.images[..., 0], theirs.data.numpy())
    assert np.array_equal(test.labels, theirs.targets.numpy())

    theirs = FashionMNIST(project / "data/raw", train=True)
    splits = [Split.read("train", folder), Split.read("validation", folder)]
    assert [np.bincount(split.labels).tolist() for split in splits] == [[5400] * 10, [600] * 10]
    ours = np.concatenate([np.c_[split.images.reshape(-1, 784), split.labels] for split in splits])
    expected = np.c_[theirs.data.numpy().reshape(-1, 784), theirs.targets.numpy()]
    assert sorted(row.tobytes() for row in ours.astype(np.uint8)) == sorted(
        row.tobytes() for row in expected.astype(np.uint8)
    )


def test_the_onnx_model_predicts_what_the_pth_model_predicts(project: Path, predicted: tuple[Tensor, Tensor]) -> None:
    from serving.session import open_session

    session = open_session(project / "models/model.onnx", "CPUExecutionProvider")
    images = np.load(project / "data/prepared/test_images.npy")
    (logits,) = session.run(["logits"], {"images": images})
    np.testing.assert_allclose(logits, predicted[0].numpy(), atol=1e-4)
    parity = json.loads((project / "reports/parity.json").read_text())
    assert parity["samples"] == 10_000
    assert [entry["size"] for entry in parity["batch_sizes"]] == [1, 2, 7, 64, 1024]
    assert parity["label_agreement"] >= 0.999
