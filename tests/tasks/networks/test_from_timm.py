"""Networks of timm: any image shape that they can take fits them, and they are imported only when asked for."""

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from tasks import evaluate, export, train
from tasks.model import classifier
from tasks.networks.from_timm import NetworkError, create
from tests.support.params import ROOT, write_params

FAMILIES = ["timm/test_resnet", "timm/test_efficientnet", "timm/test_vit", "timm/test_convnext"]


def built(name: str, shape: tuple[int, int, int], stem: str = "small", **rates: float) -> nn.Module:
    return create(name, shape, 7, stem, rates.get("drop_rate", 0.0), rates.get("drop_path_rate", 0.0))


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 40, 3), (72, 64, 3)])
@pytest.mark.parametrize("name", [*FAMILIES, "timm/mobilenetv3_small_050"])
def test_images_of_any_shape_become_logits(name: str, shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    network = built(name.removeprefix("timm/"), shape)
    assert network.training
    assert network.eval()(torch.zeros(2, channels, height, width)).shape == (2, 7)


def test_a_resnet_of_small_images_is_the_one_of_the_papers_on_cifar() -> None:
    network = built("resnet18", (32, 32, 3))
    assert network.get_submodule("conv1").stride == (1, 1)
    assert isinstance(network.maxpool, nn.Identity)
    assert network.get_submodule("layer2.0.conv1").stride == (2, 2)
    assert network.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)  # type: ignore[operator]


@pytest.mark.parametrize(("side", "stem"), [(96, "small"), (32, "as_built")])
def test_a_network_is_as_timm_builds_it_where_images_are_large_or_it_is_asked_to(side: int, stem: str) -> None:
    torch.manual_seed(0)
    ours = built("resnet18", (side, side, 3), stem).eval()
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", num_classes=7).eval()
    x = torch.randn(1, 3, side, side)
    assert torch.equal(ours(x), theirs(x))


def test_a_shortcut_shrinks_no_more_than_the_block_that_it_is_around() -> None:
    network = built("resnet18", (8, 8, 1))
    assert network.get_submodule("layer2.0.conv1").stride == (1, 1)
    assert network.get_submodule("layer2.0.downsample.0").stride == (1, 1)
    assert network.get_submodule("layer4.0.conv1").stride == (2, 2)


@pytest.mark.parametrize(("side", "patch"), [(28, 4), (64, 8), (224, 16)])
def test_a_transformer_sees_enough_patches(side: int, patch: int) -> None:
    network = built("vit_tiny_patch16_224", (side, side, 1))
    assert network.get_submodule("patch_embed.proj").stride == (patch, patch)


def test_drop_rates_reach_the_network() -> None:
    network = built("test_efficientnet", (32, 32, 3), drop_rate=0.25, drop_path_rate=0.5)
    assert network.drop_rate == 0.25
    assert any(getattr(layer, "drop_prob", 0) for layer in network.modules())


@pytest.mark.parametrize(
    ("name", "shape", "stem", "rate", "reason"),
    [
        ("resnet81", (32, 32, 3), "small", 0.0, r"no network of that name; near it are .*resnet"),
        ("qqqq", (32, 32, 3), "small", 0.0, r"no network of that name\. All names: python -c"),
        ("resnet18.a9", (32, 32, 3), "small", 0.0, r"no such weights; known: resnet18\.a1_in1k"),
        ("vgg11", (8, 8, 3), "as_built", 0.0, r"does not take images of 8 x 8 x 3: choose a larger .*image_size"),
        ("vgg11", (32, 32, 3), "small", 0.5, r"cannot be built with .*drop_path_rate = 0\.5"),
    ],
)
def test_what_cannot_be_built_is_refused(
    name: str, shape: tuple[int, int, int], stem: str, rate: float, reason: str
) -> None:
    with pytest.raises(NetworkError, match=reason):
        built(name, shape, stem, drop_path_rate=rate)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_of_timm_trains_is_rebuilt_from_its_files_and_exported(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_params(train={"network": name, "batch_size": 3, "epochs": 1})
    train.main()
    monkeypatch.setattr("huggingface_hub.file_download.http_get", None)  # it would be called by a download
    evaluate.main()
    export.main()
    model, description = classifier.load()
    assert (description.network, description.options["stem"]) == (name, "small")
    assert description.versions["timm"] == timm.__version__
    assert classifier.digest(model.network.state_dict()) == description.state_dict


def test_the_stage_says_in_one_sentence_that_there_is_no_such_network(prepared: Path) -> None:
    write_params(train={"network": "timm/resnet81"})
    with pytest.raises(SystemExit, match=r"^train: train\.network = timm/resnet81: timm .* near it are "):
        train.main()


def test_timm_is_not_imported_by_a_stage_that_does_not_ask_for_it() -> None:
    script = "import sys, tasks.train, tasks.params.whole; print('timm' in sys.modules, 'torchvision' in sys.modules)"
    words = (sys.executable, "-W", "ignore", "-c", script)
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == "False False\n"
