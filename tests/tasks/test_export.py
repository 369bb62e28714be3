"""export: a model that passes the parity gate is published; after a failure there is none, but after a refusal."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from serving.model import Predictor
from serving.session import open_session
from tasks import evaluate, export, train
from tasks.evaluation.record import ClassScores, Evaluation, Reliability
from tasks.exported import graph
from tasks.harness import lock, stage
from tasks.harness.records import read_json, write_json
from tasks.model import classifier
from tasks.prepared import Card, Split
from tests.support.params import write_params
from tests.support.reports import METRICS as EVALUATION

ONNX, LABELS = Path("models/model.onnx"), Path("models/labels.txt")
PARITY, METRICS = Path("reports/parity.json"), Path("reports/metrics.json")
WRITTEN = (ONNX, LABELS, PARITY, METRICS)


@pytest.fixture
def made(exported: Path, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """The graph that export made of the model in the workspace, and will not make anew: that takes a second."""
    proto = onnx.load(exported / "model.onnx")
    monkeypatch.setattr(export, "to_onnx", lambda *_: proto)
    return proto


def refusal() -> str:
    with pytest.raises(SystemExit) as stopped:
        export.main()
    return str(stopped.value.code)


@pytest.mark.parametrize(("network", "flip"), [("cnn", False), ("cnn", True), ("mlp", True)])
def test_every_network_trains_exports_and_passes_parity(prepared: Path, network: str, flip: bool) -> None:
    write_params(train={"network": network, "flip_at_test": flip})
    for task in (train, evaluate, export):
        task.main()
    model, _ = classifier.load()
    images = Split.read("test").images
    logits = session_logits(images)
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(torch.from_numpy(images)).numpy(), atol=1e-5)
    assert np.allclose(logits, session_logits(images[:, :, ::-1]), atol=1e-5) == flip


def calibrate_at(temperature: float) -> None:
    """Let the evaluation have fitted a temperature, and ask export to divide by it."""
    path = Path("reports/evaluation.json")
    fitted = {"value": temperature, "images": 2, "remark": None}
    calibrated = asdict(Reliability(0.25, 0.125, Evaluation.read().calibration))
    write_json(path, read_json(path) | {"temperature": fitted, "calibrated": calibrated})
    write_params(export={"calibrate": True})


def test_a_calibrated_model_serves_probabilities_at_the_temperature_and_the_logits_as_they_are(exported: Path) -> None:
    images = Split.read("test").images
    before, pixels = session_logits(images), images[:3]
    calibrate_at(2.5)
    export.main()
    np.testing.assert_array_equal(session_logits(images), before)
    expected = torch.from_numpy(before[:3] / 2.5).softmax(1).numpy()
    np.testing.assert_allclose(Predictor(ONNX)(pixels), expected, atol=1e-6)
    assert {entry.key: entry.value for entry in onnx.load(ONNX).metadata_props}["temperature"] == "2.5"
    assert read_json(PARITY)["temperature"] == 2.5
    found = json.loads(METRICS.read_text())
    assert (found["loss"], found["calibration_error"]) == (0.25, 0.125)


@pytest.mark.parametrize("asked", [True, False])
def test_a_graph_with_another_temperature_than_asked_for_is_withheld(
    exported: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    calibrate_at(0.5)
    if not asked:
        write_params(export={"calibrate": False})
    make = graph.to_onnx
    # That asked for is missing, or there is one that nobody asked for.
    monkeypatch.setattr(export, "to_onnx", lambda model, shape, _: make(model, shape, 1.0 if asked else 0.5))
    assert re.match(r"export: parity failed: a probability differs by 0\.\d+, export\.tolerance is 0\.0001", refusal())
    assert not ONNX.exists()


def session_logits(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(ONNX, providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(["logits"], {"images": np.ascontiguousarray(images)})[0]
    return logits


def test_a_model_that_passed_is_published(exported: Path) -> None:
    found = read_json(PARITY)
    assert found["passed"]
    assert (found["provider_requested"], found["provider"], found["samples"]) == (
        "auto",
        open_session(ONNX).get_providers()[0],
        8,
    )
    assert found["nodes"] > 0
    assert [entry["size"] for entry in found["batch_sizes"]] == [1, 3]
    assert found["accuracy_pth"] == found["accuracy_onnx"] == read_json(Path("reports/evaluation.json"))["accuracy"]


def test_metrics_json_holds_the_figures_of_a_run_so_far_as_two_machines_agree_on_them(exported: Path) -> None:
    found, evaluation = json.loads(METRICS.read_text()), read_json(Path("reports/evaluation.json"))
    assert list(found) == ["accuracy", "loss", "calibration_error", "lowest_recall", "logit_error_below"]
    assert found["loss"] == round(evaluation["loss"], 4) != evaluation["loss"]
    assert found["lowest_recall"] == min(scores["recall"] for scores in list(evaluation["per_class"].values())[:2])
    assert found["logit_error_below"] == 1e-5 > read_json(PARITY)["max_abs_error"]


@pytest.mark.parametrize(
    ("largest", "below"), [(0.0, 1e-5), (3e-7, 1e-5), (9.99e-6, 1e-5), (1e-5, 1e-4), (2.3e-5, 1e-4), (0.5, 1.0)]
)
def test_the_logit_error_is_a_power_of_ten_that_dvc_does_not_round_to_nothing(largest: float, below: float) -> None:
    per_class = {"cat": ClassScores(1, 0.25, 0.4, 4), "dog": ClassScores(0, 0, 0, 0)}  # without images
    found = export.metrics(replace(EVALUATION, loss=0.12345, per_class=per_class), largest)
    assert found["logit_error_below"] == below
    assert round(below, 5) == below  # as `dvc metrics diff` does
    assert (found["loss"], found["lowest_recall"]) == (0.1235, 0.25)


def test_one_file_is_all_there_is(
    exported: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path_factory.mktemp("alone") / "model.onnx"
    alone.write_bytes(ONNX.read_bytes())
    monkeypatch.chdir(alone.parent)
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"images": np.zeros((1, 28, 28, 1), np.uint8)})


def test_the_same_model_gives_the_same_bytes(exported: Path) -> None:
    first = [path.read_bytes() for path in WRITTEN]
    export.main()
    assert [path.read_bytes() for path in WRITTEN] == first


def test_labels_are_the_class_names_in_the_order_of_the_outputs(exported: Path) -> None:
    assert LABELS.read_text().splitlines() == Card.read().class_names


def test_a_model_with_a_nudged_weight_is_withheld(made: onnx.ModelProto) -> None:
    weight = next(tensor for tensor in made.graph.initializer if tensor.name.endswith("4.bias"))
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] += 1e-3
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    message = refusal()
    assert re.match(r"export: parity failed: the logits of test image \d at batch size \d differ by 0.001", message)
    assert "export.tolerance is 0.0001" in message
    assert message.endswith("dvc checkout models/model.onnx models/labels.txt")
    assert sorted(path.name for path in Path("models").iterdir()) == ["model.json", "model.pth"]
    assert not METRICS.exists()
    found = read_json(PARITY)
    assert not found["passed"]
    assert found["max_abs_error"] == pytest.approx(1e-3, rel=1e-2)


def test_an_accelerator_that_is_missing_is_an_error_of_its_own(made: onnx.ModelProto) -> None:
    write_params(export={"provider": "CUDAExecutionProvider"})
    assert "export.provider = CUDAExecutionProvider: CUDAExecutionProvider is not in this ONNX Runtime" in refusal()
    assert not ONNX.exists()
    found = read_json(PARITY)
    assert (found["passed"], found["provider"], found["provider_requested"]) == (False, None, "CUDAExecutionProvider")


def test_an_accelerator_that_does_not_run_the_nodes_is_an_error_of_its_own(
    made: onnx.ModelProto, capfd: pytest.CaptureFixture[str]
) -> None:
    # The CPU build of ONNX Runtime has this provider, but it takes none of our nodes.
    write_params(export={"provider": "AzureExecutionProvider"})
    assert "export.provider = AzureExecutionProvider: AzureExecutionProvider cannot run the model" in refusal()
    assert not ONNX.exists()


@pytest.mark.parametrize("name", ["models/model.pth", "reports/evaluation.json", "data/prepared/test_images.npy"])
def test_what_is_there_stays_until_the_stage_may_run(exported: Path, name: str) -> None:
    Path(name).unlink()
    assert f"{name} is missing: run the stages before this one too" in refusal()
    assert all(path.exists() for path in WRITTEN)


def test_an_evaluation_that_no_stage_wrote_is_refused_and_leaves_the_model_that_is_there(exported: Path) -> None:
    write_json(Path("reports/evaluation.json"), {})
    message = refusal()
    assert message.startswith("export: reports/evaluation.json is refused, it is not what a stage wrote: ")
    assert "accuracy: missing; loss: missing; " in message
    assert all(path.exists() for path in WRITTEN)


@pytest.mark.parametrize(
    ("section", "old", "new"),
    [
        ("export", "tolerance: 0.0001", "tolerance: -1"),
        ("evaluate", "batch_size: 5", "batch_size: 0"),
        ("train", "threads: 1", "threads: 0"),
    ],
)
def test_refused_params_are_said_so_and_leave_the_model_that_is_there(
    exported: Path, section: str, old: str, new: str
) -> None:
    before = [path.read_bytes() for path in (ONNX, PARITY)]
    params = Path("params.yaml").read_text()
    assert old in params
    Path("params.yaml").write_text(params.replace(old, new))
    key, value = new.split(": ")
    assert refusal().startswith(f"export: params.yaml is refused:\n  {section}.{key} = {value}: ")
    assert [path.read_bytes() for path in (ONNX, PARITY)] == before


def test_while_another_export_runs_a_second_one_leaves_its_model_alone(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "ENDS_WITHIN_S", 0)
    before = [path.read_bytes() for path in (ONNX, PARITY)]
    with lock.hold(stage.LOCKS / "export.lock", 0):
        assert refusal().startswith("export: it runs already, as process ")
    assert [path.read_bytes() for path in (ONNX, PARITY)] == before
