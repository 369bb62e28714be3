"""export: the ONNX graph, its metadata, and a third opinion on its logits."""

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

from tasks import classifier, export
from tasks.classifier import Classifier, Description
from tasks.prepared import Card, Split
from tasks.stage import StageError, read_json
from tests import quickstart
from tests.conftest import ROOT, write_params


@pytest.fixture
def exported(evaluated: Path) -> onnx.ModelProto:
    export.main()
    return onnx.load("models/model.onnx")


@pytest.mark.parametrize("normalize", [False, True])
def test_the_onnx_projects_own_evaluator_computes_the_same_logits(prepared: Path, normalize: bool) -> None:
    card = Card.read()
    mean, std = (card.mean, card.std) if normalize else ([0.0], [1.0])
    torch.manual_seed(0)
    model = Classifier(quickstart.NeuralNetwork(), mean, std)
    images = Split.read("test").images
    answer = ReferenceEvaluator(export.to_onnx(model, [28, 28, 1])).run(None, {"images": images})
    logits, probabilities = (np.asarray(values) for values in answer)
    with torch.no_grad():
        expected = model(torch.from_numpy(images))
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(probabilities, expected.softmax(1).numpy(), atol=1e-6)


def test_the_signature_is_the_contracts(exported: onnx.ModelProto) -> None:
    session = onnxruntime.InferenceSession("models/model.onnx", providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 28, 28, 1])
    outputs = [(output.name, output.type, output.shape) for output in session.get_outputs()]
    assert outputs == [(name, "tensor(float)", ["batch", 10]) for name in ("logits", "probabilities")]


def test_any_batch_size_runs(exported: onnx.ModelProto) -> None:
    session = onnxruntime.InferenceSession("models/model.onnx", providers=["CPUExecutionProvider"])
    for size in (1, 2, 3, 1025):
        logits, probabilities = session.run(None, {"images": np.zeros((size, 28, 28, 1), np.uint8)})
        assert logits.shape == probabilities.shape == (size, 10)


def test_one_file_is_all_there_is(
    exported: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path_factory.mktemp("alone") / "model.onnx"
    alone.write_bytes(Path("models/model.onnx").read_bytes())
    monkeypatch.chdir(alone.parent)
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"images": np.zeros((1, 28, 28, 1), np.uint8)})


def test_the_metadata_say_what_it_is_and_where_it_comes_from(exported: onnx.ModelProto) -> None:
    metadata = {entry.key: entry.value for entry in exported.metadata_props}
    _, description = classifier.load()
    assert json.loads(metadata["class_names"]) == Card.read().class_names
    assert metadata["dataset"] == "fashion_mnist"
    assert json.loads(metadata["dataset_sources"]) == Card.read().sources
    assert metadata["state_dict"] == description.state_dict
    assert json.loads(metadata["test_accuracy"]) == read_json(Path("reports/metrics.json"))["accuracy"]
    assert set(json.loads(metadata["versions"])) == {"python", "torch", "numpy", "onnx", "onnxruntime"}


def test_no_path_of_this_machine_is_in_the_file(exported: onnx.ModelProto) -> None:
    content = Path("models/model.onnx").read_bytes()
    for path in (str(ROOT), str(Path.cwd()), "site-packages", ".py"):
        assert path.encode() not in content


def test_the_same_model_gives_the_same_bytes(exported: onnx.ModelProto) -> None:
    first = [Path(name).read_bytes() for name in ("models/model.onnx", "reports/parity.json")]
    export.main()
    assert [Path(name).read_bytes() for name in ("models/model.onnx", "reports/parity.json")] == first


def test_the_oldest_runtime_takes_its_opset_and_ir(exported: onnx.ModelProto) -> None:
    newest_opset, newest_ir = export.RUNTIMES[export.OLDEST_RUNTIME]
    assert min(export.RUNTIMES.values()) == (newest_opset, newest_ir)
    assert exported.opset_import[0].version <= newest_opset
    assert exported.ir_version <= newest_ir


def test_dropout_and_batch_norm_are_exported_for_inference() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 10))
    model = Classifier(network, [0.0], [1.0]).train()
    proto = export.to_onnx(model, [8, 8, 1])
    export.check(proto, describe([8, 8, 1]))
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(images)).numpy()
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["logits"], {"images": images})[0], expected, atol=1e-5)


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
    model.graph.node[0].doc_string = str(Path.cwd() / "tasks/classifier.py")


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
def test_a_model_that_breaks_the_contract_is_refused(workspace: Path, spoil, complaint: str) -> None:  # type: ignore[no-untyped-def]
    proto = export.to_onnx(Classifier(quickstart.NeuralNetwork(), [0.0], [1.0]), [28, 28, 1])
    export.check(proto, describe([28, 28, 1]))
    spoil(proto)
    with pytest.raises(StageError, match=f"^the exported model has {complaint}"):
        export.check(proto, describe([28, 28, 1]))


def test_weights_in_another_file_are_refused(workspace: Path) -> None:
    proto = export.to_onnx(Classifier(quickstart.NeuralNetwork(), [0.0], [1.0]), [28, 28, 1])
    onnx.save(proto, "model.onnx", save_as_external_data=True, location="weights.bin")
    with pytest.raises(StageError, match="weights in another file"):
        export.check(onnx.load("model.onnx", load_external_data=False), describe([28, 28, 1]))


def test_a_missing_model_leaves_no_older_one(exported: onnx.ModelProto) -> None:
    Path("models/model.pth").unlink()
    with pytest.raises(SystemExit, match=r"models/model\.pth is missing: run the stages before this one too"):
        export.main()
    assert not Path("models/model.onnx").exists()
    assert not Path("reports/parity.json").exists()


def test_refused_params_are_said_so(evaluated: Path) -> None:
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("tolerance: 0.0001", "tolerance: -1"))
    with pytest.raises(SystemExit, match=r"export: params.yaml is refused:\n  export.tolerance = -1"):
        export.main()
    write_params()
