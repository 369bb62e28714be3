"""ONNX models as anyone may hand them to serving: small, and with our signature and metadata unless told otherwise."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

CLASSES = ["dark", "light"]
WEIGHTS = (-0.01, 0.01)
REVERSED = (0.01, -0.01)
METADATA = {"class_names": json.dumps(CLASSES), "resize": "stretch", "schema_version": "1"}


def images(*sizes: str | int, dtype: int = TensorProto.UINT8, name: str = "images") -> ValueInfoProto:
    """Describe an input of the model: of 4 x 4 grey pixels, unless `sizes` says otherwise."""
    return helper.make_tensor_value_info(name, dtype, sizes or ("batch", 4, 4, 1))


def nodes() -> list[NodeProto]:
    """The brightest pixel times a weight for each class, as logits, and their softmax."""
    return [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["float", "axes"], ["brightest"], keepdims=0),
        helper.make_node("Unsqueeze", ["brightest", "one"], ["column"]),
        helper.make_node("MatMul", ["column", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]


def model(
    *,
    inputs: Sequence[ValueInfoProto] = (),
    outputs: Sequence[str] = ("logits", "probabilities"),
    output_dtype: int = TensorProto.FLOAT,
    graph: Sequence[NodeProto] = (),
    weights: tuple[float, float] = WEIGHTS,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """Build a model of two classes; with REVERSED weights it takes light for dark."""
    constants = {
        "axes": np.array([1, 2, 3]),
        "one": np.array([1]),
        "weights": np.array([weights], np.float32),
    }
    proto = helper.make_model(
        helper.make_graph(
            graph or nodes(),
            "served",
            inputs or [images()],
            [helper.make_tensor_value_info(name, output_dtype, ["batch", len(CLASSES)]) for name in outputs],
            [onnx.numpy_helper.from_array(values, name) for name, values in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    helper.set_model_props(proto, METADATA if metadata is None else metadata)
    return proto


def save(proto: onnx.ModelProto, name: str = "model.onnx") -> Path:
    Path(name).write_bytes(proto.SerializeToString())
    return Path(name)


def linear(
    weights: NDArray[np.float32], image_shape: tuple[int, int, int], class_names: Sequence[str]
) -> onnx.ModelProto:
    """Build a model whose logits are pixels times weights, `float32 [H * W * C + 1, classes]`, and the last row."""
    constants = {
        "flat": np.array([-1, len(weights) - 1]),
        "weights": weights[:-1],
        "bias": weights[-1],
    }
    graph = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["float", "flat"], ["pixels"]),
        helper.make_node("Gemm", ["pixels", "weights", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", len(class_names)])
        for name in ("logits", "probabilities")
    ]
    initializers = [onnx.numpy_helper.from_array(values, name) for name, values in constants.items()]
    proto = helper.make_model(
        helper.make_graph(graph, "linear", [images("batch", *image_shape)], outputs, initializers),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    helper.set_model_props(proto, METADATA | {"class_names": json.dumps(class_names)})
    return proto
