"""What the server says of itself and of its model, as the Open Inference Protocol and Triton's extensions have it."""

import json
from typing import Any

from serving.model import OUTPUTS
from serving.server.limits import Limits
from serving.server.served import Served
from serving.server.service import Service
from serving.server.tensors import DATATYPE, INPUT

MODEL = "classifier"
PLATFORM = "onnxruntime_onnx"  # Triton's name for it


def server() -> dict[str, Any]:
    """Return the server's metadata."""
    return {
        "name": "classifier-pipeline",
        "version": "0.1.0",
        "extensions": [
            "binary_tensor_data",
            "classification",
            "model_configuration",
            "model_repository",
            "statistics",
        ],
    }


def metadata(model: Served) -> dict[str, Any]:
    """Return the model's metadata; a size of -1 may be any."""
    classes = len(model.predictor.class_names)
    return {
        "name": MODEL,
        "versions": [model.version],
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": DATATYPE, "shape": [-1, *model.predictor.image_shape]}],
        "outputs": [{"name": name, "datatype": "FP32", "shape": [-1, classes]} for name in OUTPUTS],
    }


def configuration(model: Served, limits: Limits) -> dict[str, Any]:
    """Return the model's configuration in the form of Triton's ModelConfig; what it does not know is in parameters."""
    classes = len(model.predictor.class_names)
    parameters = {
        "sha256": model.sha256,
        "class_names": json.dumps(model.predictor.class_names),
        "resize": model.predictor.resize,
        "provider": model.predictor.session.get_providers()[0],
    }
    return {
        "name": MODEL,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": limits.batch,
        "input": [{"name": INPUT, "data_type": f"TYPE_{DATATYPE}", "dims": list(model.predictor.image_shape)}],
        "output": [{"name": name, "data_type": "TYPE_FP32", "dims": [classes]} for name in OUTPUTS],
        "dynamic_batching": {},
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }


def report(service: Service) -> dict[str, Any]:
    """Return what the page shows of the model that answers."""
    model = service.model
    told = model.report
    return {
        "model_name": MODEL,
        **model.about(),
        "refused": service.refused,
        "image_shape": model.predictor.image_shape,
        "resize": model.predictor.resize,
        "classes": len(model.predictor.class_names),
        "upload_bytes": service.limits.upload,
        "dataset": told.dataset,
        "network": told.network,
        "test_accuracy": told.test_accuracy,
        "temperature": told.temperature,
        "verdict": told.verdict,
        "samples": [{"path": f"samples/{k}.png", "label": one.label} for k, one in enumerate(told.samples)],
    }
