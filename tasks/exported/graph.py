"""The classifier as one ONNX model: from raw pixels to probabilities, for any batch size, with its provenance."""

import json
import sys
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from tasks.exported.metadata import document, preprocessing
from tasks.harness.errors import StageError
from tasks.model.classifier import Description

OPSET, IR = 18, 8  # what ONNX 1.13 brought, and all that the networks need
# The newest opset and IR version that a release of ONNX Runtime takes: measured by loading a model of each combination,
# and as in https://onnxruntime.ai/docs/reference/compatibility.html
RUNTIMES = {"1.15.1": (19, 9), "1.16.3": (19, 9), "1.17.3": (20, 9), "1.18.1": (21, 10)}
OLDEST_RUNTIME = "1.15.1"  # that the project supports: the first for Python 3.11


class WithProbabilities(nn.Module):
    """A classifier as it is served: images `uint8 [N, H, W, C]` in, logits and probabilities `float32` out.

    Only the probabilities are at the temperature: the logits stay those of the .pth model.
    """

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(images)
        tempered = logits if self.temperature == 1 else logits / self.temperature
        return logits, torch.softmax(tempered, dim=1)


def to_onnx(model: nn.Module, image_shape: list[int], temperature: float) -> onnx.ModelProto:
    """Export a classifier in evaluation mode as one self-contained model for any batch size."""
    example = torch.zeros((2, *image_shape), dtype=torch.uint8)  # two: a batch of one would be taken as fixed
    program = torch.onnx.export(
        WithProbabilities(model, temperature).eval(),
        (example,),
        dynamo=True,
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        input_names=["images"],
        output_names=["logits", "probabilities"],
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None
    exported = program.model_proto
    exported.ir_version = IR
    # Traces of the export: stack traces with paths of this machine among them.
    for part in (exported.graph, *exported.graph.node, *exported.graph.input, *exported.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    exported.graph.ClearField("value_info")
    document(exported)
    return exported


def provenance(description: Description, accuracy: float, temperature: float) -> dict[str, str]:
    """Say in the metadata what the model is, takes and comes from; a value that is no string is JSON."""
    return {
        **preprocessing(description.image_shape, description.dataset.resize),
        "class_names": json.dumps(description.class_names),
        "dataset": description.dataset.name,
        "dataset_sources": json.dumps(description.dataset.sources),
        "network": description.network,
        "state_dict": description.state_dict,
        "temperature": f"{temperature:g}",
        "test_accuracy": json.dumps(accuracy),
        "versions": json.dumps(
            {**description.versions, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
        ),
    }


def check(exported: onnx.ModelProto, description: Description) -> None:
    """Check everything about the model that can be checked without running it.

    Raises:
        StageError: lists what is wrong.
        onnx.checker.ValidationError: it is not valid ONNX.
    """
    onnx.checker.check_model(exported, full_check=True)
    newest_opset, newest_ir = RUNTIMES[OLDEST_RUNTIME]
    classes = len(description.class_names)
    inputs, outputs = (
        {value.name: _signature(value) for value in values} for values in (exported.graph.input, exported.graph.output)
    )
    operators = {node.op_type for node in exported.graph.node}
    content = exported.SerializeToString()
    wrong = [
        complaint
        for complaint, holds in {
            f"opset above {newest_opset}": any(opset.version > newest_opset for opset in exported.opset_import),
            f"IR version above {newest_ir}": exported.ir_version > newest_ir,
            f"inputs {inputs}": inputs != {"images": ("UINT8", "batch", *description.image_shape)},
            f"outputs {outputs}": outputs != dict.fromkeys(("logits", "probabilities"), ("FLOAT", "batch", classes)),
            "Dropout": "Dropout" in operators,
            "BatchNormalization in training mode": any(_trains(node) for node in exported.graph.node),
            "weights in another file": any(
                onnx.external_data_helper.uses_external_data(t) for t in exported.graph.initializer
            ),
            "a path of this machine": any(path.encode() in content for path in (str(Path.cwd()), sys.prefix)),
        }.items()
        if holds
    ]
    if wrong:
        raise StageError(f"the exported model has {'; '.join(wrong)}")


def _signature(value: onnx.ValueInfoProto) -> tuple[str | int, ...]:
    tensor = value.type.tensor_type
    sizes = (dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return onnx.TensorProto.DataType.Name(tensor.elem_type), *sizes


def _trains(node: onnx.NodeProto) -> bool:
    return node.op_type == "BatchNormalization" and any(a.name == "training_mode" and a.i for a in node.attribute)
