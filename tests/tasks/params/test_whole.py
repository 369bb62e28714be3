"""params.yaml as a whole: what is shipped, and every value that is refused, all at once."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks.data.datasets import DATASETS
from tasks.harness import section
from tasks.harness.errors import ParamsError
from tasks.harness.section import PARAMS
from tasks.params import whole
from tasks.params.whole import Params
from tests.support.params import shipped_params, write_params


def test_what_is_shipped() -> None:
    p = section.parse(Params, YAML(typ="safe").load(shipped_params()), "params.yaml")
    assert (p.download.dataset, p.transform.validation_fraction) == ("fashion_mnist", 0.1)
    assert (p.train.epochs, p.train.batch_size, p.train.learning_rate, p.train.normalize) == (5, 256, 0.5, "fitted")
    assert p.export.batch_sizes == (1, 2, 7, 64, 1024)


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_in_the_table_may_be_named(workspace: Path, name: str) -> None:
    assert write_params(download={"dataset": name}).download.dataset == name


BAD = [
    ("download", "dataset", "mnits", "should be one of fashion_mnist, mnist, "),
    ("download", "path", "", "at least 1 character"),
    ("transform", "image_size", [64], "[height, width]"),
    ("transform", "image_size", [0], "greater than or equal to 1"),
    ("transform", "channels", 4, "1 or 3"),
    ("transform", "resize", "fit", "'crop' or 'stretch'"),
    ("transform", "on_bad_image", "warn", "'fail' or 'skip'"),
    ("transform", "max_bad_fraction", 1.0, "less than 1"),
    ("transform", "on_leak", "skip", "'fail' or 'allow'"),
    ("transform", "validation_fraction", 0, "greater than 0"),
    ("transform", "validation_fraction", 1.0, "less than 1"),
    ("transform", "test_fraction", "0.2", "valid number"),
    ("transform", "seed", -1, "greater than or equal to 0"),
    ("train", "epochs", 0, "greater than or equal to 1"),
    ("train", "epochs", 2.5, "valid integer"),
    ("train", "epochs", True, "valid integer"),
    ("train", "batch_size", 65537, "less than or equal to 65536"),
    ("train", "network", "resnet", "should be one of mlp, cnn, or a network of timm, such as timm/resnet18"),
    ("train", "network", "timm/../x", "should be one of mlp, cnn, or a network of timm"),
    ("train", "network", "timm/hf-hub:a/b", "should be one of mlp, cnn, or a network of timm"),
    ("train", "optimizer", "lion", "'sgd', 'adam', 'adamw', 'rmsprop' or 'muon'"),
    ("train", "momentum", 1.0, "less than 1"),
    ("train", "weight_decay", -0.1, "greater than or equal to 0"),
    ("train", "schedule", "step", "'constant', 'cosine' or 'one_cycle'"),
    ("train", "warm_up", 1.0, "less than 1"),
    ("train", "clip_norm", 0, "greater than 0"),
    ("train", "learning_rate", 0, "greater than 0"),
    ("train", "learning_rate", float("nan"), "finite number"),
    ("train", "learning_rate", "fast", "valid number"),
    ("train", "normalize", True, "'none', 'half', 'fitted' or 'pretrained'"),
    ("train", "normalize", "pretrained", "should come with train.transfer.weights"),
    ("train", "threads", 0, "greater than or equal to 1"),
    ("evaluate", "pictures", 101, "less than or equal to 100"),
    ("export", "provider", "gpu", "auto or a name of ONNX Runtime's"),
    ("export", "tolerance", 0, "greater than 0"),
    ("export", "batch_sizes", [], "at least one value"),
    ("export", "batch_sizes", [1, 1], "none of them twice"),
    ("export", "batch_sizes", [0], "greater than or equal to 1"),
    ("export", "batch_sizes", 64, "input should be a valid list"),
    ("quantize", "to", "int8", "input should be a valid list"),
    ("quantize", "to", ["int8", "int8"], "list should have at most 1 item"),
    ("quantize", "calibration_images", 0, "greater than or equal to 1"),
    ("quantize", "max_accuracy_drop", 1.5, "less than or equal to 1"),
    ("quantize", "max_changed_labels", -0.1, "greater than or equal to 0"),
    ("flow", "download_retries", -1, "greater than or equal to 0"),
    ("flow", "retry_delay_s", 0, "greater than or equal to 1"),
]


@pytest.mark.parametrize(("section", "key", "value", "right"), BAD)
def test_a_bad_value_is_refused_with_its_name_itself_and_what_is_right(
    workspace: Path, section: str, key: str, value: object, right: str
) -> None:
    with pytest.raises(ParamsError) as refused:
        write_params(**{section: {key: value}})
    message = str(refused.value)
    assert f"params.yaml is refused:\n  {section}.{key}" in message
    assert repr(value[0] if isinstance(value, list) and value == [0] else value) in message
    assert right in message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cnn": {"channels": []}}, r"train.cnn.channels = \[\]: .* at least 1 item"),
        ({"cnn": {"channels": [8, 0]}}, "train.cnn.channels.1 = 0: .* greater than or equal to 1"),
        ({"mlp": {"final_relu": False, "width": 3}}, "train.mlp.width: unknown key; known here: final_relu"),
        ({"augment": {"mixup": 1.0, "cutmix": 1.0}}, "mixup and cutmix should not both be above 0"),
        ({"timm": {"stem": "large"}}, "train.timm.stem = 'large': input should be 'small' or 'as_built'"),
        ({"timm": {"drop_rate": 1.0}}, "train.timm.drop_rate = 1.0: .* less than 1"),
        ({"transfer": {"weights": "a.onnx"}}, "null, hub, or the path of a .pth or .safetensors file"),
        ({"transfer": {"weights": "./models/model.pth"}}, "should be a copy elsewhere: DVC removes"),
        ({"transfer": {"weights": "hub"}}, "weights: hub should come with a network of timm, not mlp"),
        ({"transfer": {"sha256": "abc"}}, "train.transfer.sha256 = 'abc'"),
        ({"transfer": {"freeze": "backbone"}}, "freeze: backbone should come with weights"),
        ({"transfer": {"backbone_rate": 0.0}}, "train.transfer.backbone_rate = 0.0: .* greater than 0"),
        ({"augment": {"shift": -1}}, "train.augment.shift = -1: .* greater than or equal to 0"),
    ],
)
def test_a_bad_value_deeper_down_is_named(workspace: Path, changes: dict[str, dict[str, object]], reason: str) -> None:
    shipped = YAML(typ="safe").load(shipped_params())["train"]
    with pytest.raises(ParamsError, match=reason):
        write_params(train={name: shipped[name] | values for name, values in changes.items()})


WRITTEN = ["data/raw", "data/prepared", "models", "reports", ".cache", ".dvc", ".git", ".venv", "dvc_plots"]


@pytest.mark.parametrize(
    "path", [*WRITTEN, *(f"{path}/images" for path in WRITTEN), "data", ".", "..", "/", "x/../models"]
)
def test_images_in_at_or_above_what_the_pipeline_writes_are_refused(workspace: Path, path: str) -> None:
    with pytest.raises(ParamsError, match=r"download.path = '.*': should be apart from ") as refused:
        write_params(download={"path": path})
    assert "data/inbox is a place for your own images" in str(refused.value)


def test_links_to_what_the_pipeline_writes_are_refused(workspace: Path) -> None:
    Path("data/raw/cat").mkdir(parents=True)
    Path("elsewhere/images").mkdir(parents=True)
    Path("to_raw").symlink_to("data/raw/cat")
    Path("models").symlink_to("elsewhere")
    for path in ("to_raw", "elsewhere/images", "elsewhere"):
        with pytest.raises(ParamsError, match="should be apart from "):
            write_params(download={"path": path})
    Path("circle").symlink_to("circle")
    with pytest.raises(ParamsError, match=r"download\.path = 'circle': cannot be followed"):
        write_params(download={"path": "circle"})
    with pytest.raises(ParamsError, match=r"should be apart from folders named \.partial-\*"):
        write_params(download={"path": "data/.partial-download/images"})


@pytest.mark.parametrize("path", ["data/inbox", "data/rawer", "../images", "/images", "model"])
def test_images_anywhere_else_are_welcome(workspace: Path, path: str) -> None:
    assert write_params(download={"path": path}).download.path == path


def test_all_errors_are_reported_at_once(workspace: Path) -> None:
    with pytest.raises(ParamsError) as refused:
        write_params(train={"epoch": 3, "epochs": "many"}, export={"tolerance": -1})
    message = str(refused.value)
    assert "train.epoch: unknown key; known here: network, mlp, cnn, timm, transfer, epochs, batch_size" in message
    assert "train.epochs = 'many'" in message
    assert "export.tolerance = -1" in message


def test_a_missing_key_and_a_missing_section_are_named(workspace: Path) -> None:
    shipped = shipped_params()
    PARAMS.write_text(shipped[shipped.index("transform:") :].replace("  seed: 0\n", "", 1))
    with pytest.raises(ParamsError, match=r"(?s)  download: missing\n.*  transform\.seed: missing"):
        whole.load()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("train: [", "not valid YAML"),
        ("train: {epochs: 1}\ntrain: {epochs: 2}\n", "not valid YAML"),
        ("", "the whole file = None"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(workspace: Path, text: str, reason: str) -> None:
    PARAMS.write_text(text)
    with pytest.raises(ParamsError, match=reason):
        whole.load()
