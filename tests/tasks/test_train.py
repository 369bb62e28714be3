"""train: model.pth and model.json, the same bytes from the same seed, and what pixels are normalised to."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.transforms import Normalize, ToTensor

from tasks import train
from tasks.harness import section
from tasks.harness.errors import StageError
from tasks.model import classifier
from tasks.params.train import Train
from tasks.prepared import Card, Split
from tasks.training.checkpoint import Checkpoint
from tasks.training.ranks import Ranks
from tests.support import quickstart
from tests.support.disk import BLOCK, mounted
from tests.support.params import write_params

CPU = torch.device("cpu")
DEVICE = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def test_the_state_dict_loads_into_the_quickstarts_class(trained: Path) -> None:
    model = quickstart.NeuralNetwork()
    model.load_state_dict(torch.load("models/model.pth", weights_only=True))
    test = Split.read("test")
    x = torch.stack([ToTensor()(image) for image in test.images])
    ours, _ = classifier.load()
    with torch.no_grad():
        assert torch.equal(model(x), ours(torch.from_numpy(test.images)))


def test_a_curve_that_is_linked_to_dvcs_cache_leaves_the_cache_as_it_is(trained: Path, tmp_path: Path) -> None:
    curve = Path("reports/learning_curve.csv")
    (cached := tmp_path / "cached").hardlink_to(curve)
    before = cached.read_bytes()
    write_params(train={"epochs": 1})
    train.main()
    assert cached.read_bytes() == before
    assert curve.read_bytes() == before[: before.index(b"\n2,") + 1]
    assert [path.name for path in curve.parent.glob(".*")] == []


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(trained: Path) -> None:
    first = [(trained / name).read_bytes() for name in ("model.pth", "model.json")]
    curve = Path("reports/learning_curve.csv").read_bytes()
    train.main()
    assert [(trained / name).read_bytes() for name in ("model.pth", "model.json")] == first
    assert Path("reports/learning_curve.csv").read_bytes() == curve
    write_params(train={"seed": 1})
    train.main()
    assert (trained / "model.pth").read_bytes() != first[0]


def test_model_json_says_what_rebuilds_the_network_and_what_it_was_trained_on(trained: Path) -> None:
    description = json.loads((trained / "model.json").read_text())
    card = Card.read()
    assert description["schema_version"] == 1
    assert (description["network"], description["image_shape"]) == ("mlp", [28, 28, 1])
    assert (description["options"], description["flip_at_test"]) == ({"final_relu": False}, False)
    assert description["class_names"] == card.class_names
    assert (description["mean"], description["std"]) == ([0.0], [1.0])
    assert description["dataset"]["sources"] == card.sources
    assert description["training"] == section.load(Train).model_dump(mode="json")
    assert (description["device"], description["threads"]) == (str(DEVICE), 1)
    assert description["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert description["versions"]["torch"] == torch.__version__


def test_normalize_uses_the_training_images_statistics(prepared: Path) -> None:
    write_params(train={"normalize": "fitted"})
    train.main()
    card = Card.read()
    model, description = classifier.load()
    assert (description.mean, description.std) == (card.mean, card.std)
    images = torch.from_numpy(Split.read("train").images)
    x = (images.permute(0, 3, 1, 2) / 255 - card.mean[0]) / card.std[0]
    with torch.no_grad():
        torch.testing.assert_close(model(images), model.network(x))
    assert abs(x.mean()) < 1e-6


def test_half_is_the_tutorials_normalize(prepared: Path) -> None:
    write_params(train={"normalize": "half"})
    train.main()
    model, _ = classifier.load()
    images = torch.from_numpy(Split.read("train").images)
    x = torch.stack([Normalize(0.5, 0.5)(ToTensor()(image.numpy())) for image in images])
    with torch.no_grad():
        torch.testing.assert_close(model(images), model.network(x))


def test_options_that_do_not_fit_the_images_are_named(prepared: Path) -> None:
    write_params(train={"network": "cnn", "cnn": {"channels": [4], "stride": 1, "convolutions": 1, "whitening": 5}})
    card = replace(Card.read(), image_shape=[4, 28, 1])
    params = section.load(Train)
    with pytest.raises(StageError, match=r"^train.cnn: whitening = 5: the images of 4 x 28 pixels are smaller"):
        train.train(train.describe(card, params, None), params, None, CPU, Ranks(), Checkpoint("k", CPU))


def test_the_first_filters_come_from_the_training_images_and_are_rebuilt_from_the_files(prepared: Path) -> None:
    write_params(train={"network": "cnn", "cnn": {"channels": [4, 8], "stride": 1, "convolutions": 2, "whitening": 2}})
    train.main()
    model, description = classifier.load()
    assert description.options == {"channels": [4, 8], "stride": 1, "convolutions": 2, "whitening": 2}
    fresh = classifier.build(description)
    fresh.look_at(torch.from_numpy(Split.read("train").images))
    assert torch.equal(fresh.network.state_dict()["blocks.0.weight"], model.network.state_dict()["blocks.0.weight"])


def test_a_disk_without_room_for_it_is_said_and_with_room_it_gives_the_same_model(
    trained: Path, after: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = (trained / "model.pth").read_bytes()
    monkeypatch.setenv("CHECKPOINT_EVERY_S", "0")
    with mounted(tmp_path / "disk", megabytes=16) as disk:
        monkeypatch.chdir(shutil.copytree(after("transform"), disk.folder / "project"))
        with disk.read_only(), pytest.raises(SystemExit, match=r"^train: Read-only file system: "):
            train.main()
        said = []
        for free in range(0, len(undisturbed) // BLOCK, 100):
            with disk.full(free), pytest.raises(SystemExit) as stopped:
                train.main()
            said.append(str(stopped.value.code))
            assert not Path("models").exists() or not any(Path("models").iterdir())
        assert len(said) > 5
        assert all(one.startswith("train: the disk is full (") for one in said)
        train.main()
        assert Path("models/model.pth").read_bytes() == undisturbed
        monkeypatch.chdir(tmp_path)
