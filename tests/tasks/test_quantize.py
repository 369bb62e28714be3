"""quantize: an 8-bit model that passes its gate is published beside the other, which stays as it is in any case."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from serving.model import Predictor
from serving.session import CPU, open_session
from tasks import evaluate, export, quantize, train
from tasks.exported import int8
from tasks.harness.records import read_json, write_json
from tasks.prepared import Split
from tests.support import served
from tests.support.params import write_params

FLOAT32, INT8, REPORT = Path("models/model.onnx"), Path("models/model.int8.onnx"), Path("reports/int8.json")
ANY = {"to": ["int8"], "max_accuracy_drop": 1.0, "max_changed_labels": 1.0}  # of eight images, one may be another


@pytest.fixture
def asked(exported: Path) -> Path:
    write_params(quantize=ANY)
    return exported


def refusal() -> str:
    with pytest.raises(SystemExit) as stopped:
        quantize.main()
    return str(stopped.value.code)


def test_a_model_that_passed_is_published_and_serves(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, test = FLOAT32.read_bytes(), Split.read("test")
    quantize.main()
    assert FLOAT32.read_bytes() == before
    labels = Predictor(INT8)(test.images).argmax(1)
    found = read_json(REPORT)
    assert (found["passed"], found["samples"], found["batch_sizes"]) == (True, 8, [1, 3])
    assert found["between_batch_sizes"] == 0
    assert found["accuracy_int8"] == (labels == test.labels).mean()
    metadata = {entry.key: entry.value for entry in onnx.load(INT8).metadata_props}
    assert metadata["precision"] == "int8"
    assert json.loads(metadata["test_accuracy"]) == found["accuracy_int8"]
    assert json.loads(metadata["quantization"])["calibration_images"] == 4
    assert re.search(r"Saved ONNX model to models/model.int8.onnx, 2\d% of the bytes", capsys.readouterr().out)


def test_the_same_model_gives_the_same_bytes(asked: Path) -> None:
    quantize.main()
    first = (INT8.read_bytes(), REPORT.read_bytes())
    quantize.main()
    assert (INT8.read_bytes(), REPORT.read_bytes()) == first


def test_a_model_that_fails_is_withheld_with_the_reason_and_the_other_stays(
    asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize.main()
    make: Callable[..., onnx.ModelProto] = int8.quantize

    def upside_down(*given: object) -> onnx.ModelProto:
        proto = make(*given)
        (scale,) = (tensor for tensor in proto.graph.initializer if tensor.name == "logits_scale")
        scale.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(scale), scale.name))
        return proto

    monkeypatch.setattr(int8, "quantize", upside_down)
    write_params(quantize=ANY | {"max_changed_labels": 0.02})
    before = FLOAT32.read_bytes()
    message = refusal()
    assert message.startswith(
        "quantize: models/model.int8.onnx was withheld, see reports/int8.json: 87.50% of the test"
    )
    assert message.endswith("quantize.max_changed_labels is 0.02. models/model.onnx stays")
    assert FLOAT32.read_bytes() == before
    assert not INT8.exists()
    assert not read_json(REPORT)["passed"]


def test_nothing_is_made_that_nobody_asked_for(exported: Path) -> None:
    assert refusal() == "quantize: quantize.to is empty in params.yaml; [int8] asks for models/model.int8.onnx"
    assert not INT8.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no model", "CPUExecutionProvider cannot run the model"),
        (served.model(metadata={}).SerializeToString(), "models/model.onnx is no model of this pipeline"),
    ],
)
def test_what_export_did_not_make_is_refused_and_leaves_what_is_there(asked: Path, content: bytes, reason: str) -> None:
    quantize.main()
    FLOAT32.write_bytes(content)
    before = INT8.read_bytes()
    assert refusal().startswith(f"quantize: {reason}")
    assert INT8.read_bytes() == before


def test_without_an_exported_model_it_says_which_stage_is_missing(asked: Path) -> None:
    FLOAT32.unlink()
    assert "models/model.onnx is missing: run the stages before this one too, with dvc repro quantize" in refusal()


def test_what_the_model_was_exported_with_stays(prepared: Path) -> None:
    """A mirror image as well, and probabilities at a temperature."""
    write_params(train={"network": "cnn", "flip_at_test": True}, export={"calibrate": True}, quantize=ANY)
    train.main()
    evaluate.main()
    path = Path("reports/evaluation.json")
    fitted = {"value": 2.5, "images": 2, "remark": None}
    write_json(path, read_json(path) | {"temperature": fitted})
    export.main()
    quantize.main()
    images = Split.read("test").images
    logits, probabilities = open_session(INT8, CPU).run(None, {"images": images})
    exponentials = np.exp(logits / 2.5)
    np.testing.assert_allclose(probabilities, exponentials / exponentials.sum(1, keepdims=True), atol=1e-6)
    mirrored = open_session(INT8, CPU).run(["logits"], {"images": np.ascontiguousarray(images[:, :, ::-1])})[0]
    np.testing.assert_allclose(logits, mirrored, atol=2e-3)  # a step or two: sums in another order round otherwise
    before = open_session(FLOAT32, CPU).run(["logits"], {"images": images})[0]
    assert np.abs(logits - before).max() < 0.05 * np.ptp(before)
