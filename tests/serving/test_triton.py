"""A model repository for Triton: the model in service, whole or not at all, and never over what somebody else wrote."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from serving import triton
from tests.support import served
from tests.support.params import ROOT

FOLDER = Path("models/triton/classifier")
FILES = ["1/model.onnx", "config.pbtxt", "labels.txt"]


@pytest.fixture
def model(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/model.onnx, and no champion yet."""
    Path("models").mkdir()
    monkeypatch.setattr(sys, "argv", ["triton"])
    for name in ("MODEL", "OUT", "PROVIDER", "REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    return served.save(served.model(), "models/model.onnx")


def files(folder: Path = FOLDER) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def refusal() -> str:
    with pytest.raises(SystemExit) as stopped:
        triton.main()
    return str(stopped.value.code)


def test_it_holds_the_model_its_labels_and_its_configuration(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    triton.main()
    assert files() == FILES
    assert (FOLDER / "1/model.onnx").read_bytes() == model.read_bytes()
    assert (FOLDER / "labels.txt").read_text().splitlines() == served.CLASSES
    config = (FOLDER / "config.pbtxt").read_text()
    assert 'input { name: "images" data_type: TYPE_UINT8 dims: [4, 4, 1] }' in config, "Triton adds the batch"
    assert config.count("dims: [2]") == 2
    assert "KIND_CPU" in config
    printed = capsys.readouterr().out
    assert "there is no champion in models/registry yet, make promote makes one; models/model.onnx instead" in printed
    assert f"tritonserver --model-repository={Path('models/triton').absolute()}" in printed
    assert [path.name for path in FOLDER.parent.iterdir()] == ["classifier"]


def promote(names: list[str]) -> bytes:
    content: bytes = served.model(metadata=served.METADATA | {"class_names": json.dumps(names)}).SerializeToString()
    digest = sha256(content).hexdigest()
    folder = Path("models/registry", digest)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    pointer = {"schema_version": 1, "path": f"{digest}/model.onnx", "sha256": digest, "size": len(content), "number": 1}
    Path("models/registry/champion.json").write_text(json.dumps(pointer))
    return content


def test_the_champion_is_what_triton_serves_where_there_is_one(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    triton.main()
    champion = promote(["line\nbreak", "naïve"])
    triton.main()
    assert (FOLDER / "1/model.onnx").read_bytes() == champion
    assert (FOLDER / "labels.txt").read_text() == "line\\nbreak\nnaïve\n"
    assert files() == FILES
    monkeypatch.setenv("MODEL", "models/model.onnx")
    triton.main()
    assert (FOLDER / "1/model.onnx").read_bytes() == model.read_bytes()


def test_a_champion_of_other_bytes_is_not_handed_on(model: Path) -> None:
    promote(["a", "b"])
    (path,) = Path("models/registry").glob("*/model.onnx")
    path.write_bytes(model.read_bytes())
    assert "has other bytes than those that were promoted" in refusal()
    assert not FOLDER.exists()


def test_the_environment_says_where_it_goes_and_what_runs_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT", "other folder/triton")
    monkeypatch.setenv("PROVIDER", "CUDAExecutionProvider")
    triton.main()
    assert "KIND_GPU" in Path("other folder/triton/classifier/config.pbtxt").read_text()
    assert not Path("models/triton").exists()
    monkeypatch.setenv("PROVIDER", "gpu")
    assert refusal() == "2"


def edit_config() -> None:
    path = FOLDER / "config.pbtxt"
    path.write_text(path.read_text().replace("max_batch_size: 64", "max_batch_size: 8"))


def replace_model() -> None:
    (FOLDER / "1/model.onnx").write_bytes(b"another")


def add_a_version() -> None:
    (FOLDER / "2").mkdir()
    (FOLDER / "2/model.onnx").touch()


def remove_labels() -> None:
    (FOLDER / "labels.txt").unlink()


def link_the_model() -> None:
    (FOLDER / "1/model.onnx").rename("elsewhere.onnx")
    (FOLDER / "1/model.onnx").symlink_to(Path("elsewhere.onnx").absolute())


def link_the_folder() -> None:
    FOLDER.rename("elsewhere")
    FOLDER.symlink_to(Path("elsewhere").absolute())


@pytest.mark.parametrize(
    "change", [edit_config, replace_model, add_a_version, remove_labels, link_the_model, link_the_folder]
)
def test_what_somebody_changed_is_left_alone(model: Path, change) -> None:  # type: ignore[no-untyped-def]
    triton.main()
    change()
    before = {name: (FOLDER / name).read_bytes() for name in files()}
    message = refusal()
    assert message.startswith("triton: models/triton/classifier is not what make triton wrote, or was edited since;")
    assert message.endswith("move it away, or name another folder with OUT=")
    assert {name: (FOLDER / name).read_bytes() for name in files()} == before


def test_another_file_of_that_name_is_left_alone_and_other_models_are_no_concern(model: Path) -> None:
    other = FOLDER.with_name("other model") / "config.pbtxt"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    FOLDER.write_text("mine, too")
    assert "is not what make triton wrote" in refusal()
    FOLDER.unlink()
    triton.main()
    triton.main()
    assert files() == FILES
    assert other.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.onnx", "missing.onnx does not exist"),
        ("params.yaml", "CPUExecutionProvider cannot run the model params.yaml"),
        ("foreign.onnx", "foreign.onnx is no model of this pipeline: schema_version of its metadata is None"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_with_the_reason(
    model: Path, name: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.save(served.model(metadata={}), "foreign.onnx")
    monkeypatch.setenv("MODEL", name)
    assert refusal().startswith(f"triton: {reason}")
    assert not FOLDER.exists()


@pytest.mark.parametrize("out", ["models/model.onnx", "params.yaml/triton", "/proc/triton"])
def test_where_nothing_can_be_written_it_says_so(model: Path, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT", out)
    message = refusal()
    assert message.startswith("triton: ")
    assert message.endswith(f"OUT={out} cannot be written")
    assert sorted(path.name for path in Path("models").iterdir()) == ["model.onnx"]


def test_it_needs_nothing_of_what_trains(model: Path) -> None:
    script = "import sys; from serving import triton; print({'torch', 'tasks', 'onnx', 'pydantic'} & set(sys.modules))"
    words = (sys.executable, "-c", script)
    answer = subprocess.run(words, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True, check=True)
    assert answer.stdout == "set()\n"
