"""What needs packages from the registry: other builds of ONNX Runtime, and the serving lock alone. Run by .ci/run."""

import json
import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from serving.session import open_session
from tasks import evaluate, export, quantize, train
from tasks.exported import graph
from tasks.harness import section
from tasks.harness.records import read_json
from tasks.model.batches import predict
from tasks.model.classifier import load
from tasks.params.export import Export
from tasks.prepared import Split
from tests.support.params import ROOT, write_params
from tests.support.registry import keep, point
from tests.support.server import running

pytestmark = pytest.mark.registry


def install(folder: Path, *requirements: str) -> Path:
    """Make a virtual environment of its own and return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    subprocess.run((python, "-m", "pip", "install", "--quiet", *requirements), check=True)
    return python


def run(python: Path, *words: str) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run((python, *words), env=env, stdout=subprocess.PIPE, text=True, check=False)
    assert answer.returncode == 0
    return answer.stdout


@pytest.mark.skipif(sys.version_info >= (3, 12), reason=f"ONNX Runtime {graph.OLDEST_RUNTIME} is for Python up to 3.11")
def test_the_oldest_runtime_computes_the_parity_samples(evaluated: Path, tmp_path: Path) -> None:
    export.main()
    model, _ = load()
    test = Split.read("test")
    reference = predict(model, test, 8, torch.device("cpu")).numpy()
    write_params(quantize={"to": ["int8"], "max_accuracy_drop": 1.0, "max_changed_labels": 1.0})
    quantize.main()
    int8 = open_session("models/model.int8.onnx", "CPUExecutionProvider").run(["logits"], {"images": test.images})[0]
    np.savez("samples.npz", images=test.images, reference=reference, int8=int8)
    newest_opset, newest_ir = graph.RUNTIMES[graph.OLDEST_RUNTIME]
    for name, opset, ir in (("opset", newest_opset + 1, newest_ir), ("ir", newest_opset, newest_ir + 1)):
        proto = onnx.load("models/model.onnx")
        proto.opset_import[0].version, proto.ir_version = opset, ir
        onnx.save(proto, f"{name}.onnx")
    script = """
import json, numpy, onnxruntime
from serving.session import SessionError, open_session
samples = numpy.load("samples.npz")
session = open_session("models/model.onnx")
errors = []
for size in (1, 2, 3, 7, 8):
    for start in range(0, 8, size):
        logits, = session.run(["logits"], {"images": samples["images"][start : start + size]})
        errors.append(float(abs(logits - samples["reference"][start : start + size]).max()))
refused = []
for name in ("opset", "ir"):
    try:
        open_session(f"{name}.onnx", "CPUExecutionProvider")
    except SessionError:
        refused.append(name)
session = open_session("models/model.int8.onnx")
same = bool((session.run(["logits"], {"images": samples["images"]})[0] == samples["int8"]).all())
print(json.dumps([onnxruntime.__version__, max(errors), refused, same]))
"""
    shutil.copytree(ROOT / "serving", "serving")
    python = install(tmp_path / "venv", f"onnxruntime=={graph.OLDEST_RUNTIME}", "numpy<2")
    version, error, refused, same = json.loads(run(python, "-c", script))
    assert version == graph.OLDEST_RUNTIME
    assert error <= section.load(Export).tolerance
    assert refused == ["opset", "ir"], "the table says that this release takes neither"
    assert same, "whole numbers leave no room for another answer"


def curl(python: Path) -> dict[str, Any]:
    """Serve what lies here, and return what is answered to image.png."""
    with running(Path(), python=python, PYTHONPATH="") as server:
        words = ("curl", "-sSf", "-F", "image=@image.png", f"{server.url}/predict")
        answer: dict[str, Any] = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
    return answer


def test_serving_needs_its_own_small_lock_and_nothing_else(evaluated: Path, tmp_path: Path) -> None:
    export.main()
    shutil.copytree(ROOT / "serving", "serving")
    Image.fromarray(Split.read("test").images[0, ..., 0]).save("image.png")
    python = install(tmp_path / "venv", "--require-hashes", "-r", str(ROOT / "requirements-serving.txt"))
    printed = run(python, "-m", "serving.predict", "image.png")
    assert printed == run(Path(sys.executable), "-m", "serving.predict", "image.png")
    assert printed.startswith("image.png: ")
    # Nothing but the copy of serving/ and the model, or the registry, as the README has it.
    answer = curl(python)
    assert printed.startswith(f"image.png: {answer['label']} {answer['probability']:.1%}")
    champion = point(Path("models/registry"), keep(Path("models/registry"), onnx.load("models/model.onnx")), 42)
    Path("models/model.onnx").unlink()
    assert curl(python) == {**answer, "model_version": "42", "sha256": champion.sha256}
    installed = sum(file.lstat().st_size for file in python.parents[1].rglob("*") if not file.is_dir())
    assert installed < 250e6, "MB, says the README"


OPENVINO = "onnxruntime-openvino==1.24.1"
ADDS_A_NODE = """
import onnx
from tasks import evaluate, export, quantize, train
make = export.to_onnx
def with_one_that_openvino_lacks(*given):
    proto = make(*given)
    proto.graph.node[-1].output[0] = "before"
    proto.graph.node.append(onnx.helper.make_node("Bernoulli", ["before"], ["probabilities"]))
    return proto
export.to_onnx = with_one_that_openvino_lacks
export.main()
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="OpenVINO's build of ONNX Runtime is for x86-64")
def test_the_gate_runs_on_openvino_which_has_to_take_every_node(prepared: Path, tmp_path: Path) -> None:
    write_params(train={"network": "cnn"}, export={"provider": "OpenVINOExecutionProvider"})
    train.main()
    evaluate.main()
    # Before the ONNX Runtime of the lock, so that the stage is the real one, PyTorch and all.
    words = ("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "openvino"), OPENVINO)
    subprocess.run((sys.executable, *words), check=True)
    env = os.environ | {"PYTHONPATH": f"{tmp_path / 'openvino'}{os.pathsep}{ROOT}"}

    def python(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run((sys.executable, *words), env=env, capture_output=True, text=True, check=False)

    answer = python("-m", "tasks", "export")
    assert answer.returncode == 0, answer.stderr
    found = read_json(Path("reports/parity.json"))
    assert (found["passed"], found["provider"], found["label_agreement"]) == (True, "OpenVINOExecutionProvider", 1)
    assert found["nodes"] > 10, "each of them proven to run there"
    assert 0 < found["max_abs_error"] <= 1e-5
    refused = python("-c", ADDS_A_NODE)
    assert refused.returncode == 1
    assert "OpenVINOExecutionProvider cannot run the model" in refused.stderr
    assert "fallback to CPU EP has been explicitly disabled" in refused.stderr
    assert not Path("models/model.onnx").exists()


PARSES = """
import json, sys
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
config = text_format.Parse(open(sys.argv[1]).read(), ModelConfig())
print(json.dumps(json_format.MessageToDict(config, preserving_proto_field_name=True)))
"""


def test_tritons_own_client_reads_the_configuration(exported: Path, tmp_path: Path) -> None:
    subprocess.run((sys.executable, "-m", "serving.triton"), env={"PYTHONPATH": str(ROOT)}, check=True)
    python = install(tmp_path / "venv", "tritonclient[grpc]==2.73.0")  # whose protobuf is not the lock's
    config = json.loads(run(python, "-c", PARSES, "models/triton/classifier/config.pbtxt"))
    warm_up = config.pop("model_warmup")
    assert config == {
        "name": "classifier",
        "backend": "onnxruntime",
        "max_batch_size": 64,
        "input": [{"name": "images", "data_type": "TYPE_UINT8", "dims": ["28", "28", "1"]}],
        "output": [
            {"name": "logits", "data_type": "TYPE_FP32", "dims": ["10"]},
            {"name": "probabilities", "data_type": "TYPE_FP32", "dims": ["10"], "label_filename": "labels.txt"},
        ],
        "dynamic_batching": {},
        "instance_group": [{"kind": "KIND_CPU", "count": 1}],
    }
    black = {"images": {"data_type": "TYPE_UINT8", "dims": ["28", "28", "1"], "zero_data": True}}
    assert [(one["batch_size"], one["inputs"]) for one in warm_up] == [(1, black), (64, black)]
