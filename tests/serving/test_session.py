"""Sessions on one execution provider alone."""

from pathlib import Path

import pytest

from serving.session import ProviderError, candidates, open_session


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
