"""The ONNX model: its logits, its signature, any batch size, its metadata, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from tasks.exported import graph
from tasks.harness.errors import StageError
from tasks.harness.records import read_json
from tasks.model import classifier
from tasks.model.classifier import Classifier, Description
from tasks.prepared import Card, Split
from tests.support.params import ROOT


@pytest.fixture
def model(exported: Path) -> onnx.ModelProto:
    return onnx.load(exported / "model.onnx")


@pytest.mark.parametrize("normalize", [False, True])
def test_the_onnx_projects_own_evaluator_computes_the_same_logits(model: onnx.ModelProto, normalize: bool) -> None:
    ours, _ = classifier.load()
    if normalize:  # which the model in the workspace does not
        card = Card.read()
        ours = Classifier(ours.network, card.mean, card.std)
        model = graph.to_onnx(ours, card.image_shape, 1)
    images = Split.read("test").images
    logits, probabilities = (np.asarray(values) for values in ReferenceEvaluator(model).run(None, {"images": images}))
    with torch.no_grad():
        expected = ours(torch.from_numpy(images))
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(probabilities, expected.softmax(1).numpy(), atol=1e-6)


def test_the_signature_is_the_contracts(model: onnx.ModelProto) -> None:
    session = onnxruntime.InferenceSession("models/model.onnx", providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 28, 28, 1])
    outputs = [(output.name, output.type, output.shape) for output in session.get_outputs()]
    assert outputs == [(name, "tensor(float)", ["batch", 10]) for name in ("logits", "probabilities")]


def test_any_batch_size_runs(model: onnx.ModelProto) -> None:
    session = onnxruntime.InferenceSession("models/model.onnx", providers=["CPUExecutionProvider"])
    for size in (1, 2, 3, 1025):
        logits, probabilities = session.run(None, {"images": np.zeros((size, 28, 28, 1), np.uint8)})
        assert logits.shape == probabilities.shape == (size, 10)


def test_the_metadata_say_what_it_is_and_where_it_comes_from(model: onnx.ModelProto) -> None:
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    _, description = classifier.load()
    assert json.loads(metadata["class_names"]) == Card.read().class_names
    assert metadata["dataset"] == "fashion_mnist"
    assert json.loads(metadata["dataset_sources"]) == Card.read().sources
    assert metadata["state_dict"] == description.state_dict
    assert json.loads(metadata["test_accuracy"]) == read_json(Path("reports/evaluation.json"))["accuracy"]
    assert metadata["temperature"] == "1"
    assert set(json.loads(metadata["versions"])) == {"python", "torch", "numpy", "onnx", "onnxruntime"}


def test_no_path_of_this_machine_is_in_the_file(model: onnx.ModelProto) -> None:
    content = Path("models/model.onnx").read_bytes()
    for path in (str(ROOT), str(Path.cwd()), "site-packages", ".py"):
        assert path.encode() not in content


def test_the_oldest_runtime_takes_its_opset_and_ir(model: onnx.ModelProto) -> None:
    newest_opset, newest_ir = graph.RUNTIMES[graph.OLDEST_RUNTIME]
    assert min(graph.RUNTIMES.values()) == (newest_opset, newest_ir)
    assert model.opset_import[0].version <= newest_opset
    assert model.ir_version <= newest_ir


def test_dropout_and_batch_norm_are_exported_for_inference() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 10))
    model = Classifier(network, [0.0], [1.0]).train()
    proto = graph.to_onnx(model, [8, 8, 1], 1)
    graph.check(proto, describe([8, 8, 1]))
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(images)).numpy()
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["logits"], {"images": images})[0], expected, atol=1e-5)


def test_the_probabilities_are_at_the_temperature_and_the_logits_are_not() -> None:
    model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), [0.0], [0.1])
    proto = graph.to_onnx(model, [8, 8, 1], 2.5)
    graph.check(proto, describe([8, 8, 1]))
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(images))
    logits, probabilities = (np.asarray(values) for values in ReferenceEvaluator(proto).run(None, {"images": images}))
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(probabilities, (expected / 2.5).softmax(1).numpy(), atol=1e-5)


def describe(image_shape: list[int]) -> Description:
    """Describe a classifier of ten classes, as far as `check` looks."""
    nothing: dict[str, Any] = dict.fromkeys(Description.__dataclass_fields__)
    return Description(**nothing | {"class_names": list("0123456789"), "image_shape": image_shape})


def spoil_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 20


def spoil_ir(model: onnx.ModelProto) -> None:
    model.ir_version = 10


def spoil_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_value = 2


def spoil_output(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


def spoil_dropout(model: onnx.ModelProto) -> None:
    (producer,) = (node for node in model.graph.node if "probabilities" in node.output)
    producer.output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Dropout", ["before"], ["probabilities"]))


def spoil_batch_norm(model: onnx.ModelProto) -> None:
    (producer,) = (node for node in model.graph.node if "logits" in node.output)
    producer.output[0] = "before"
    ones = onnx.numpy_helper.from_array(np.ones(10, np.float32), "ones")
    model.graph.initializer.append(ones)
    index = list(model.graph.node).index(producer) + 1
    node = onnx.helper.make_node(
        "BatchNormalization", ["before", *["ones"] * 4], ["logits", "new_mean", "new_var"], training_mode=1
    )
    model.graph.node.insert(index, node)


def spoil_path(model: onnx.ModelProto) -> None:
    model.graph.node[0].doc_string = str(Path.cwd() / "tasks/model/classifier.py")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (spoil_opset, "opset above 19"),
        (spoil_ir, "IR version above 9"),
        (spoil_batch, r"inputs \{'images': \('UINT8', 2, 28, 28, 1\)\}"),
        (spoil_output, r"outputs \{'logits'"),
        (spoil_dropout, "Dropout"),
        (spoil_batch_norm, "BatchNormalization in training mode"),
        (spoil_path, "a path of this machine"),
    ],
)
def test_a_model_that_breaks_the_contract_is_refused(  # type: ignore[no-untyped-def]
    model: onnx.ModelProto, spoil, complaint: str
) -> None:
    graph.check(model, describe([28, 28, 1]))
    spoil(model)
    with pytest.raises(StageError, match=f"^the exported model has {complaint}"):
        graph.check(model, describe([28, 28, 1]))


def test_weights_in_another_file_are_refused(model: onnx.ModelProto) -> None:
    onnx.save(model, "model.onnx", save_as_external_data=True, location="weights.bin")
    with pytest.raises(StageError, match="weights in another file"):
        graph.check(onnx.load("model.onnx", load_external_data=False), describe([28, 28, 1]))
