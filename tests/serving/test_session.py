"""Sessions on one execution provider alone."""

import os
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from serving.session import ProviderError, SessionError, candidates, open_session
from tests.support import served


def test_auto_tries_the_accelerators_that_are_there_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: available)
    assert candidates("auto") == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert candidates("TensorrtExecutionProvider") == ["TensorrtExecutionProvider"]


def test_auto_goes_on_where_the_accelerator_it_was_built_for_is_missing(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # The CPU build has this one, but it takes none of our nodes.
    monkeypatch.setattr("serving.session.ACCELERATORS", ("AzureExecutionProvider",))
    assert open_session(exported / "model.onnx").get_providers()[0] == "CPUExecutionProvider"
    assert "AzureExecutionProvider cannot run the model" in capfd.readouterr().err


def test_a_session_that_fell_back_to_the_cpu_is_refused(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.InferenceSession.get_providers", lambda _: ["CPUExecutionProvider"])
    monkeypatch.setattr("onnxruntime.SessionOptions.add_session_config_entry", lambda *_: None)
    with pytest.raises(ProviderError, match="AzureExecutionProvider was asked for, but ONNX Runtime runs"):
        open_session(exported / "model.onnx", "AzureExecutionProvider")


@pytest.mark.parametrize(
    ("provider", "threads", "options"),
    [
        ("CPUExecutionProvider", 2, {}),
        ("CUDAExecutionProvider", 2, {"use_tf32": "0"}),
        ("OpenVINOExecutionProvider", 0, {"precision": "ACCURACY"}),
        ("OpenVINOExecutionProvider", 2, {"precision": "ACCURACY", "num_of_threads": "2"}),
    ],
)
def test_every_provider_computes_in_float32(
    provider: str, threads: int, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object, providers: list[tuple[str, dict[str, str]]], **__: object) -> SimpleNamespace:
        return SimpleNamespace(get_providers=lambda: [name for name, _ in providers], asked_for=providers)

    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [provider])
    monkeypatch.setattr("onnxruntime.InferenceSession", opened)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    session = open_session(b"", provider, threads)
    assert session.asked_for == [(provider, options)]
    assert (os.environ["NVIDIA_TF32_OVERRIDE"] == "0") == (provider != "CPUExecutionProvider")


def test_a_file_that_is_no_model_is_refused_with_its_name(workspace: Path) -> None:
    os.mkfifo("fifo.onnx")
    Path("folder.onnx").mkdir()
    Path("empty.onnx").touch()
    Path("text.onnx").write_text("no model\n" * 100)
    with Path("large.onnx").open("wb") as file:
        file.truncate(2**31)
    for name, reason in {
        "missing.onnx": "does not exist: make run trains models/model.onnx",
        "fifo.onnx": "cannot be read as a model: a FIFO, socket or device; a regular file is expected",
        "folder.onnx": "cannot be read as a model: Is a directory",
        "large.onnx": "has 2,147,483,648 bytes; a model has at most 2,147,483,647",
    }.items():
        with pytest.raises(SessionError, match=f"^{name} {reason}"):
            open_session(name)
    for name in ("empty.onnx", "text.onnx"):
        with pytest.raises(SessionError, match=f"^CPUExecutionProvider cannot run the model {name}: ") as refused:
            open_session(name)
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("location", ["weights.bin", "absolute"])
def test_a_model_whose_weights_lie_in_another_file_is_refused(workspace: Path, location: str) -> None:
    proto = served.model()
    onnx.save(proto, "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    proto = onnx.load("model.onnx", load_external_data=False)
    for constant in proto.graph.initializer:
        if constant.name != "weights":
            onnx.external_data_helper.load_external_data_for_tensor(constant, ".")
            constant.data_location = onnx.TensorProto.DEFAULT
            del constant.external_data[:]
        elif location == "absolute":
            constant.external_data[0].value = str(workspace / "weights.bin")
    with pytest.raises(SessionError, match=r"cannot run the model model.onnx: .*[Ee]xternal data"):
        open_session(served.save(proto), "CPUExecutionProvider")


def test_what_a_model_says_reaches_no_terminal_unescaped(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("serving.session.ACCELERATORS", ("AzureExecutionProvider",))
    graph = served.nodes()
    graph[0].op_type = "\x1b[2J\n"
    with pytest.raises(SessionError, match=r"\\x1b\[2J") as refused:
        open_session(served.save(served.model(graph=graph), "\x1b.onnx"))
    assert "\n" not in str(refused.value)
    printed = capfd.readouterr().err
    assert printed.endswith("; trying the next best\n")
    assert printed.count("\n") == 1
    assert "\x1b" not in printed


def test_a_model_that_fails_is_not_tried_again(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime's own fallback prints that it does, where it cannot read its error's text among other reasons."""
    content = served.model().SerializeToString().replace(b"Softmax", b"\xff" * 7)
    with pytest.raises(SessionError, match="cannot run the model: 'utf-8' codec can't decode"):
        open_session(content, "CPUExecutionProvider")
    assert capfd.readouterr() == ("", "")
