"""A classifier in 8 bits: the same ONNX model with its large products in whole numbers.

Static: by what an activation is rounded is measured once, on training images, and stands in the file. Dynamic
quantization takes it from each batch, so that an answer would depend on who shares the batch.

Method: https://arxiv.org/abs/1712.05877, as https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
has it: activations of 8 bits with a zero point, weights of 7 bits and a scale for each output channel.
"""

import json
import logging
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from serving.session import CPU
from tasks.prepared import Images

# All else stays float32, softmax, pooling by the mean and additions among it: there, 8 bits cost more than they save.
OPERATORS = ("Conv", "Gemm", "MatMul", "MaxPool", "Relu")
# A convolution of so few, the first of a network, is faster in float32, and all the others build on it.
FEW_CHANNELS = 4
BATCH = 64  # calibration images at a time


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no type information
    """Training images in batches, once."""

    def __init__(self, images: Images) -> None:
        self.batches = iter(np.array_split(images, -(-len(images) // BATCH)))

    def get_next(self) -> dict[str, Images] | None:
        return next(({"images": batch} for batch in self.batches), None)


def quantize(float32: bytes, images: Images) -> onnx.ModelProto:
    """Quantize an exported model; the same model and images give the same bytes.

    Weights have 7 of their 8 bits (`reduce_range`): a processor without VNNI adds two products of an activation and a
    weight in 16 bits, which 8 bits overflow, silently, 2 * 255 * 127 > 32767, and nobody knows here where the file will
    be served.

    Args:
        float32: the ONNX file.
        images: `uint8 [N, H, W, C]`, of the training images.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folded, made = Path(scratch, "folded.onnx"), Path(scratch, "int8.onnx")
        _fold(float32, folded)
        model = onnx.load(folded)
        logging.disable(logging.WARNING)  # it advises what `_fold` has done
        try:
            quantize_static(
                model,
                made,
                _Batches(images),
                op_types_to_quantize=list(OPERATORS),
                nodes_to_exclude=_first_convolutions(model),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibration_providers=[CPU],
            )
        finally:
            logging.disable(logging.NOTSET)
        quantized = onnx.load(made)
    return _as_exported(quantized, onnx.load_from_string(float32))


def provenance(float32: bytes, calibration_images: int, accuracy: float) -> dict[str, str]:
    """Say in the metadata what the model is and comes from, in place of what the float32 model says of itself."""
    model = onnx.load_from_string(float32)
    method: dict[str, Any] = {
        "method": "static, from the least to the largest value",
        "activations": "uint8",
        "weights": "int8 by output channel, -64 to 64",
        "calibration_images": calibration_images,
        "onnxruntime": onnxruntime.__version__,
    }
    return {
        **{entry.key: entry.value for entry in model.metadata_props},
        "precision": "int8",
        "quantization": json.dumps(method),
        "quantized_from": f"sha256:{sha256(float32).hexdigest()}",
        "test_accuracy": json.dumps(accuracy),
    }


def _fold(float32: bytes, path: Path) -> None:
    """Write the model with its constants computed and each normalisation folded into the convolution before it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3  # errors: it warns that a file that it has optimised is for this machine alone
    onnxruntime.InferenceSession(float32, options, providers=[CPU])


def _first_convolutions(model: onnx.ModelProto) -> list[str]:
    """Name the convolutions of few channels that are not those of a network that convolves each channel alone."""
    few = {
        tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 4 and tensor.dims[1] <= FEW_CHANNELS
    }
    return [
        node.name for node in model.graph.node if node.op_type == "Conv" and node.input[1] in few and not _grouped(node)
    ]


def _grouped(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)


def _as_exported(quantized: onnx.ModelProto, float32: onnx.ModelProto) -> onnx.ModelProto:
    """Say of the model what `tasks/exported/graph.py` says of every one, and no more than its operators need."""
    quantized.ir_version = float32.ir_version
    quantized.doc_string = float32.doc_string
    quantized.producer_name, quantized.producer_version = float32.producer_name, float32.producer_version
    del quantized.opset_import[:]
    quantized.opset_import.extend(float32.opset_import)  # ONNX Runtime lists every domain that it knows
    for kind in ("input", "output"):
        values = getattr(quantized.graph, kind)
        del values[:]
        values.extend(getattr(float32.graph, kind))
    quantized.graph.ClearField("value_info")
    onnx.checker.check_model(quantized, full_check=True)
    return quantized
