"""Models that anyone may hand over: what keeps the contract is run, all else is refused in one sentence."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from serving.images import MAX_SIDE
from serving.model import Predictor
from serving.session import CPU, SessionError
from tasks.params import transform
from tests.support import served
from tests.support.served import METADATA, images, model, save


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path) -> None:
    pass


def refusal(proto: onnx.ModelProto) -> str:
    with pytest.raises(SessionError) as refused:
        Predictor(save(proto))
    message = str(refused.value)
    assert message.isprintable()
    return message


def test_a_model_that_keeps_the_contract_is_run() -> None:
    predictor = Predictor(save(model()))
    assert (predictor.class_names, predictor.resize, predictor.image_shape) == (served.CLASSES, "stretch", (4, 4, 1))
    found = predictor(np.stack([np.full((4, 4, 1), value, np.uint8) for value in (0, 255)]))
    assert found.argmax(axis=1).tolist() == [0, 1]
    assert found.sum(axis=1) == pytest.approx([1, 1])


def test_it_says_which_provider_was_proven_to_run_all_nodes() -> None:
    predictor = Predictor(save(model()))
    assert (predictor.provider, predictor.nodes) == (CPU, len(served.nodes()))


def test_a_model_that_the_provider_does_not_run_whole_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [SimpleNamespace(ep_name="Elsewhere", get_nodes=lambda: [0])]
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info", lambda _: graphs)
    with pytest.raises(SessionError, match=r"^CPUExecutionProvider did not run the whole model; .*: Elsewhere 1$"):
        Predictor(save(model()))


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", '"dark"', '{"dark": 0}', "[]", '["dark", 1]', '["dark", null]', "[" * 100_000, "1" * 10_000],
    ids=lambda text: text[:12],
)
def test_class_names_that_are_no_json_list_of_strings_are_refused(text: str) -> None:
    message = refusal(model(metadata=METADATA | {"class_names": text}))
    assert re.search(r"class_names of its metadata is '.*', not a JSON list of strings$", message)
    assert len(message) < 200


@pytest.mark.parametrize("names", [["one"], ["one", "two", "three"]], ids=len)
def test_other_numbers_of_class_names_than_of_outputs_are_refused(names: list[str]) -> None:
    message = refusal(model(metadata=METADATA | {"class_names": json.dumps(names)}))
    assert message.endswith(f"tensor(float) [batch, {len(names)}], for its {len(names)} class names")


@pytest.mark.parametrize(("resize", "named"), [("squash", "'squash'"), ("", "''"), (None, "None")])
def test_a_resize_that_is_not_known_is_refused(resize: str | None, named: str) -> None:
    metadata = {key: value for key, value in (METADATA | {"resize": resize}).items() if value is not None}
    assert refusal(model(metadata=metadata)).endswith(f"resize of its metadata is {named}, not stretch or crop")


@pytest.mark.parametrize(("version", "named"), [(None, "None"), ("2", "'2'")])
def test_metadata_of_another_schema_may_mean_other_pixels_and_are_refused(version: str | None, named: str) -> None:
    metadata = {key: value for key, value in (METADATA | {"schema_version": version}).items() if value is not None}
    assert f"schema_version of its metadata is {named}, this code reads '1'; dvc repro export" in refusal(
        model(metadata=metadata)
    )


@pytest.mark.parametrize(
    "inputs",
    [
        [images(), images(name="more")],
        [images("batch", "height", "width", 1)],
        [images("batch", 4, "width", 1)],
        [images(1, 4, 4, 1)],
        [images("batch", 4, 4, 2)],
        [images("batch", 4, 4, "channels")],
        [images(dtype=TensorProto.FLOAT)],
        [images(dtype=TensorProto.INT64)],
        [helper.make_tensor_value_info("images", TensorProto.UINT8, None)],
    ],
    ids=["more", "open size", "open width", "fixed batch", "2", "open channels", "float", "int64", "without rank"],
)
def test_other_inputs_are_refused(inputs: list[onnx.ValueInfoProto]) -> None:
    message = refusal(model(inputs=inputs))
    assert message.startswith("model.onnx is no model of this pipeline: its inputs are [('images', 'tensor(")
    assert message.endswith("not images, tensor(uint8) [batch, height, width, 1 or 3] alone")


def test_an_input_of_another_name_is_refused() -> None:
    graph = served.nodes()
    graph[0].input[0] = "pixels"
    assert "its inputs are [('pixels', " in refusal(model(inputs=[images(name="pixels")], graph=graph))


def test_inputs_of_one_name_are_refused() -> None:
    assert "Duplicate definition-site for (images)" in refusal(model(inputs=[images(), images()]))


@pytest.mark.parametrize("sizes", [(100_000, 100_000), (MAX_SIDE + 1, 1), (1, 2**40), (0, 4)], ids=str)
def test_an_input_too_large_is_refused_before_an_image_of_that_size_is_made(sizes: tuple[int, int]) -> None:
    assert f"its input is {sizes[0]} x {sizes[1]} pixels; a side has 1 to 4096" in refusal(
        model(inputs=[images("batch", *sizes, 1)])
    )


def test_the_largest_input_that_params_yaml_admits_is_not_too_large() -> None:
    (bounds,) = transform.Pixels.__metadata__  # type: ignore[attr-defined]  # of typing.Annotated
    assert MAX_SIDE in [getattr(bound, "le", None) for bound in bounds.metadata]
    assert Predictor(save(model(inputs=[images("batch", MAX_SIDE, MAX_SIDE, 3)]))).image_shape == (4096, 4096, 3)


@pytest.mark.parametrize(
    "outputs", [["probabilities"], ["probabilities", "logits"], ["logits", "probabilities", "float"]]
)
def test_other_outputs_are_refused(outputs: list[str]) -> None:
    assert "its outputs are [('" in refusal(model(outputs=outputs))


def test_outputs_of_another_type_are_refused() -> None:
    graph = [
        *served.nodes()[:3],
        helper.make_node("Cast", ["weights"], ["double"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["column"], ["doubles"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["doubles", "double"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    message = refusal(model(graph=graph, output_dtype=TensorProto.DOUBLE))
    assert "('logits', 'tensor(double)', 'batch', 2)" in message


def test_text_that_is_not_utf_8_is_refused() -> None:
    for part in (b"stretch", b"images"):
        content = model().SerializeToString()
        Path("model.onnx").write_bytes(content.replace(part, b"\xff" * len(part)))
        with pytest.raises(SessionError, match="is no model of this pipeline: 'utf-8' codec can't decode"):
            Predictor(Path("model.onnx"))


def replaced(name: str, *instead: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return the nodes of a model with others in the place of the one that makes `name`."""
    return [new for node in served.nodes() for new in (instead if name in node.output else [node])]


def test_a_model_that_needs_more_memory_than_there_is_fails_in_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    graph = replaced(
        "column",
        helper.make_node("Constant", [], ["size"], value_ints=[2**36]),
        helper.make_node("ConstantOfShape", ["size"], ["256 GiB"]),
        helper.make_node("ReduceMax", ["256 GiB"], ["most"], keepdims=0),
        helper.make_node("Unsqueeze", ["brightest", "one"], ["pixels"]),
        helper.make_node("Add", ["pixels", "most"], ["column"]),
    )
    predictor = Predictor(save(model(graph=graph)))
    with pytest.raises(
        SessionError, match=r"^model.onnx failed on images \(1, 4, 4, 1\): .*Failed to allocate"
    ) as failed:
        predictor(np.zeros((1, 4, 4, 1), np.uint8))
    assert str(failed.value).isprintable()
    assert capfd.readouterr().err == "", "what ONNX Runtime logs of it"


def test_probabilities_that_are_not_finite_are_refused() -> None:
    graph = replaced(
        "column",
        helper.make_node("Log", ["brightest"], ["infinite"]),
        helper.make_node("Unsqueeze", ["infinite", "one"], ["column"]),
    )
    predictor = Predictor(save(model(graph=graph)))
    predictor(np.ones((1, 4, 4, 1), np.uint8))
    with pytest.raises(SessionError, match="returned probabilities that are not finite"):
        predictor(np.zeros((1, 4, 4, 1), np.uint8))


def test_fewer_probabilities_than_images_are_refused() -> None:
    """ONNX Runtime takes a model's word for the size of an output that it cannot work out itself."""
    graph = replaced(
        "probabilities",
        helper.make_node("Softmax", ["logits"], ["all"], axis=1),
        helper.make_node("Constant", [], ["start"], value_ints=[0]),
        helper.make_node("Constant", [], ["first"], value_ints=[0]),
        helper.make_node("ReduceMax", ["brightest"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["count"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["count", "first"], ["end"]),
        helper.make_node("Slice", ["all", "start", "end", "first"], ["probabilities"]),
    )
    predictor = Predictor(save(model(graph=graph)))
    assert len(predictor(np.full((3, 4, 4, 1), 3, np.uint8))) == 3
    with pytest.raises(SessionError, match=r"returned probabilities \(1, 2\) instead of \(3, 2\)"):
        predictor(np.full((3, 4, 4, 1), 1, np.uint8))
