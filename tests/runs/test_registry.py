"""What needs packages from the registry: the oldest ONNX Runtime, and the serving lock on its own. Run by .ci/run."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from tasks import export
from tasks.exported import graph
from tasks.harness import section
from tasks.model.batches import predict
from tasks.model.classifier import load
from tasks.params.export import Export
from tasks.prepared import Split
from tests.support.params import ROOT

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
    np.savez("samples.npz", images=test.images, reference=reference)
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
print(json.dumps([onnxruntime.__version__, max(errors), refused]))
"""
    shutil.copytree(ROOT / "serving", "serving")
    python = install(tmp_path / "venv", f"onnxruntime=={graph.OLDEST_RUNTIME}", "numpy<2")
    version, error, refused = json.loads(run(python, "-c", script))
    assert version == graph.OLDEST_RUNTIME
    assert error <= section.load(Export).tolerance
    assert refused == ["opset", "ir"], "the table says that this release takes neither"


def test_serving_needs_its_own_small_lock_and_nothing_else(evaluated: Path, tmp_path: Path) -> None:
    export.main()
    shutil.copytree(ROOT / "serving", "serving")
    Image.fromarray(Split.read("test").images[0, ..., 0]).save("image.png")
    python = install(tmp_path / "venv", "--require-hashes", "-r", str(ROOT / "requirements-serving.txt"))
    printed = run(python, "-m", "serving.predict", "image.png")
    assert printed == run(Path(sys.executable), "-m", "serving.predict", "image.png")
    assert printed.startswith("image.png: ")
