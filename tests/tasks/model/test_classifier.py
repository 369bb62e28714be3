"""model.pth and model.json: what is refused, and the digest."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from tasks.harness.errors import StageError
from tasks.model import classifier
from tasks.model.classifier import Classifier, digest, pth_bytes


class Malice:
    """A pickle that runs code when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("open('code-was-run', 'w')",))


@pytest.mark.parametrize("how", ["torch.save", "pickle.dump"])
def test_a_pickle_with_code_is_refused_and_not_run(trained: Path, how: str) -> None:
    if how == "torch.save":
        torch.save({"weight": Malice()}, "models/model.pth")
    else:
        Path("models/model.pth").write_bytes(pickle.dumps(Malice(), protocol=2))
    with pytest.raises(StageError, match=r"model.pth is not a state_dict of mlp; no code in it was run"):
        classifier.load()
    assert not Path("code-was-run").exists()


@pytest.mark.parametrize("contents", [b"", b"PK\x03\x04", b"no zip file at all"])
def test_a_broken_file_is_refused(trained: Path, contents: bytes) -> None:
    Path("models/model.pth").write_bytes(contents)
    with pytest.raises(StageError, match=r"dvc checkout models/model.pth models/model.json"):
        classifier.load()


@pytest.mark.parametrize("state_dict", [{}, {"weight": torch.zeros(3)}, [1, 2], 3])
def test_a_state_dict_of_another_network_is_refused(trained: Path, state_dict: object) -> None:
    torch.save(state_dict, "models/model.pth")
    with pytest.raises(StageError, match="is not a state_dict of mlp"):
        classifier.load()


def test_a_weight_changed_after_training_is_refused(trained: Path) -> None:
    state_dict = torch.load("models/model.pth", weights_only=True)
    state_dict["linear_relu_stack.4.bias"][3] += 1e-6
    Path("models/model.pth").write_bytes(pth_bytes(state_dict))
    with pytest.raises(StageError, match="one was changed after training"):
        classifier.load()


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("network", "ResNet", "network = 'ResNet': should be one of mlp, cnn"),
        ("network", None, "network = None: input should be a valid string"),
        ("class_names", "0123456789", "class_names = '0123456789': input should be a valid array"),
        ("class_names", ["cat"] * 10, "should be at least one name, none of them twice"),
        ("class_names", ["cat"], "models/model.pth is not a state_dict of mlp"),
        ("image_shape", [28, 28], "should have at least 3 items"),
        ("image_shape", [0, 28, 1], "image_shape.0 = 0: input should be greater than or equal to 1"),
        ("image_shape", [100_000, 100_000, 1], "image_shape.0 = 100000: input should be less than or equal to 4096"),
        ("image_shape", [4096, 4096, 1], "models/model.pth is not a state_dict of mlp"),
        ("mean", [0.0, 0.0], "should have a number for each of the 1 channels"),
        ("mean", [float("inf")], "mean.0 = inf: input should be a finite number"),
        ("std", [0.0], "std.0 = 0.0: input should be greater than 0"),
        ("std", ["1"], "std.0 = '1': input should be a valid number"),
        ("dataset", {"name": "x"}, "dataset.sizes: missing"),
        ("dataset", {"resize": "x"}, "dataset.resize = 'x': input should be 'stretch' or 'crop'"),
    ],
)
def test_a_model_json_that_describes_no_classifier_is_refused(
    trained: Path, key: str, value: object, reason: str
) -> None:
    description = json.loads(Path("models/model.json").read_text())
    Path("models/model.json").write_text(json.dumps(description | {key: value}))
    with pytest.raises(StageError) as refused:
        classifier.load()
    assert reason in str(refused.value)


def test_the_digest_depends_on_names_types_shapes_and_values_alone() -> None:
    weights = {"a": torch.arange(6.0), "b": torch.tensor(3)}
    assert digest(weights) == digest(dict(reversed(weights.items())))
    for other in (
        {**weights, "a": torch.arange(6.0).reshape(2, 3)},
        {**weights, "a": torch.arange(6)},
        {**weights, "a": torch.arange(1.0, 7.0)},
        {"a": weights["b"], "b": weights["a"]},
        {"a": weights["a"]},
    ):
        assert digest(other) != digest(weights)


def test_channels_are_normalised_each_by_its_own_statistics() -> None:
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    images = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    x = Classifier(torch.nn.Identity(), mean, std)(images)
    assert x.shape == (2, 3, 4, 5)
    expected = (images[1, 2, 3] / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(x[1, :, 2, 3], expected)


def test_a_classifier_is_loaded_from_any_folder(trained: Path) -> None:
    shutil.copytree("models", "elsewhere")
    shutil.rmtree("models")
    model, description = classifier.load(Path("elsewhere"))
    assert classifier.digest(model.network.state_dict()) == description.state_dict
    Path("elsewhere/model.pth").write_bytes(b"")
    with pytest.raises(StageError, match=r"^elsewhere/model\.pth is not a state_dict"):
        classifier.load(Path("elsewhere"))


def test_flip_at_test_gives_the_mean_over_the_mirror_image_and_trains_on_the_image_alone() -> None:
    images = torch.randint(0, 256, (2, 4, 5, 1), dtype=torch.uint8)
    plain, both = (Classifier(torch.nn.Flatten(), [0.0], [1.0], flip_at_test=flip) for flip in (False, True))
    assert torch.equal(both.train()(images), plain(images))
    torch.testing.assert_close(both.eval()(images), (plain(images) + plain(images.flip(2))) / 2)


@pytest.mark.parametrize("options", [{}, {"channels": [1.5]}, {"channels": ["a"]}, {"channels": [10**30]}, {"x": 1}])
def test_options_that_rebuild_no_network_are_refused(trained: Path, options: dict[str, object]) -> None:
    described = trained / "model.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"network": "cnn", "options": options}))
    with pytest.raises(StageError, match=r"model\.pth is not a state_dict of cnn"):
        classifier.load()
