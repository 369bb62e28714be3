"""Export the network to ONNX, and publish the file only if the parity gate passes.

Reads:  params.yaml (export, evaluate.batch_size, train.threads), data/prepared/, models/model.pth, models/model.json,
        reports/metrics.json
Writes: models/model.onnx, reports/parity.json
Run:    python -m tasks.export
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from tasks import classifier, params, parity
from tasks.batches import predict
from tasks.classifier import JSON, PTH, Description
from tasks.determinism import set_up
from tasks.prepared import Split
from tasks.stage import StageError, read_json, run, stage, write_json

ONNX = "models/model.onnx"
PARITY = "reports/parity.json"
METRICS = "reports/metrics.json"

OPSET, IR = 18, 8  # what ONNX 1.13 brought, and all that the networks need
# The newest opset and IR version that a release of ONNX Runtime takes: measured by loading a model of each combination,
# and as in https://onnxruntime.ai/docs/reference/compatibility.html
RUNTIMES = {"1.15.1": (19, 9), "1.16.3": (19, 9), "1.17.3": (20, 9), "1.18.1": (21, 10)}
OLDEST_RUNTIME = "1.15.1"  # that the project supports: the first for Python 3.11


class WithProbabilities(nn.Module):
    """A classifier as it is served: images `uint8 [N, H, W, C]` in, logits and probabilities `float32` out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(images)
        return logits, torch.softmax(logits, dim=1)


def main() -> None:
    # As DVC does before it runs a stage: after a failure neither file is there.
    for output in (ONNX, PARITY):
        Path(output).unlink(missing_ok=True)
    with stage(
        "export",
        reads=["data/prepared", PTH, JSON, METRICS],
        params=["export", "evaluate.batch_size", "train.threads"],
        writes=[PARITY, ONNX],
    ) as running:
        everything = params.load()
        p = everything.export
        device = set_up(everything.train.threads)
        print(f"Using {device} device, {torch.get_num_threads()} CPU threads", flush=True)
        model, description = classifier.load()
        test = Split.read("test")
        exported = to_onnx(model, description.image_shape)
        onnx.helper.set_model_props(exported, provenance(description, read_json(Path(METRICS))["accuracy"]))
        check(exported, description)
        reference = predict(model.to(device), test, everything.evaluate.batch_size, device).numpy()
        content = exported.SerializeToString(deterministic=True)
        verdict = parity.gate(content, reference, test, p.provider, p.tolerance, p.batch_sizes, torch.get_num_threads())
        write_json(running.path(PARITY), asdict(verdict))
        if not verdict.passed:
            running.publish(PARITY)
            raise StageError(
                f"parity failed: {verdict.reason}. {ONNX} was withheld, see {PARITY}; "
                f"if there was a good one before, it is back with: dvc checkout {ONNX}"
            )
        running.path(ONNX).write_bytes(content)
    print(
        f"Parity passed on {verdict.provider}: {verdict.samples:,} images at batch sizes "
        f"{', '.join(map(str, p.batch_sizes))}, largest logit error {verdict.max_abs_error:.2g} "
        f"(tolerance {p.tolerance:g}), {verdict.ties} ties"
    )
    print(f"Saved ONNX model to {ONNX}")


def to_onnx(model: nn.Module, image_shape: list[int]) -> onnx.ModelProto:
    """Export a classifier in evaluation mode as one self-contained model for any batch size."""
    example = torch.zeros((2, *image_shape), dtype=torch.uint8)  # two: a batch of one would be taken as fixed
    program = torch.onnx.export(
        WithProbabilities(model).eval(),
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
    return exported


def provenance(description: Description, accuracy: float) -> dict[str, str]:
    """Say in the model's metadata what it is and where it comes from; a value that is no string is JSON."""
    return {
        "class_names": json.dumps(description.class_names),
        "dataset": description.dataset["name"],
        "dataset_sources": json.dumps(description.dataset["sources"]),
        "network": description.network,
        "resize": description.dataset["resize"],
        "state_dict": description.state_dict,
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


if __name__ == "__main__":
    run(main)
