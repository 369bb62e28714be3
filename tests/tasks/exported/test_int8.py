"""The 8-bit model: which products are in whole numbers, that no processor overflows them, and what the file says."""

import json
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from serving.model import Predictor
from serving.session import CPU, open_session
from tasks.exported import graph, int8
from tasks.model.classifier import Classifier
from tasks.networks.table import NETWORKS
from tasks.prepared import Images
from tests.support.params import ROOT

CLASSES = 10


def images(count: int) -> Images:
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), np.uint8)


def float32(name: str) -> bytes:
    """Export a network of random weights, as its stage does."""
    torch.manual_seed(0)
    options = {"cnn": {"channels": [8, 8, 16, 32], "stride": 2, "convolutions": 1, "whitening": 0}}
    network = NETWORKS[name](image_shape=(28, 28, 1), classes=CLASSES, **options.get(name, {"final_relu": False}))
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):  # not the ones and zeros that it begins with
            nn.init.uniform_(part.weight, -1, 2)
            part.running_mean = torch.randn(part.num_features)
    return exported(network)


def exported(network: nn.Module) -> bytes:
    proto = graph.to_onnx(Classifier(network, [0.3], [0.4]), [28, 28, 1], 1)
    names = json.dumps([str(number) for number in range(CLASSES)])
    onnx.helper.set_model_props(proto, {"class_names": names, "resize": "stretch", "schema_version": "1"})
    content: bytes = proto.SerializeToString()
    return content


@pytest.fixture(scope="module", params=["cnn", "mlp"])
def network(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def source(network: str) -> bytes:
    return float32(network)


@pytest.fixture(scope="module")
def quantized(source: bytes) -> onnx.ModelProto:
    return int8.quantize(source, images(100))


def weights(model: onnx.ModelProto) -> list[np.ndarray]:
    return [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8]


def test_the_products_are_of_8_bits_but_for_a_first_convolution(network: str, quantized: onnx.ModelProto) -> None:
    wide = [values.shape for values in weights(quantized) if values.ndim > 1]
    assert len(wide) == {"cnn": 4, "mlp": 3}[network]
    floats = [tensor for tensor in quantized.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert [tuple(t.dims) for t in floats if len(t.dims) > 1 and np.prod(t.dims) > 9] == (
        [(8, 1, 4, 4)] if network == "cnn" else []
    )


def test_a_convolution_of_each_channel_alone_is_no_first_one() -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8 * 24 * 24, CLASSES))
    model = int8.quantize(exported(nn.Sequential(*layers)), images(8))
    assert [values.shape for values in weights(model) if values.ndim == 4] == [(8, 1, 3, 3)]
    assert [8, 1, 3, 3] in [list(t.dims) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]


def test_the_answers_are_those_of_the_float32_model_but_for_rounding(source: bytes, quantized: onnx.ModelProto) -> None:
    pixels = images(100)
    expected = open_session(source, CPU).run(["logits"], {"images": pixels})[0]
    logits = open_session(quantized.SerializeToString(), CPU).run(["logits"], {"images": pixels})[0]
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.98
    assert np.abs(logits - expected).max() > 1e-3


def test_an_answer_has_the_same_bits_in_any_company(quantized: onnx.ModelProto) -> None:
    session, pixels = open_session(quantized.SerializeToString(), CPU), images(130)
    together = session.run(None, {"images": pixels})
    for size in (1, 2, 7, 64):
        batches = [session.run(None, {"images": pixels[start : start + size]}) for start in range(0, 130, size)]
        for parts, whole in zip(zip(*batches, strict=True), together, strict=True):
            np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_two_products_fit_into_16_bits_whatever_the_pixels(quantized: onnx.ModelProto) -> None:
    """As processors without VNNI add them, and keep the largest number where the sum is beyond it."""
    largest = max(int(np.abs(values.astype(int)).max()) for values in weights(quantized))
    assert 2 * 255 * largest < 2**15
    assert largest > 60, "and no more bits than that are given away"


RUNS = """
import sys, numpy
from serving.session import open_session
logits = open_session("int8.onnx", "CPUExecutionProvider", 1).run(["logits"], {"images": numpy.load("images.npy")})[0]
numpy.save(sys.argv[1], logits)
"""


@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="there is no qemu-user that stands for another processor")
def test_a_processor_without_vnni_gives_the_same_answers(quantized: onnx.ModelProto, workspace: Path) -> None:
    Path("int8.onnx").write_bytes(quantized.SerializeToString())
    np.save("images.npy", images(20) | 128)  # bright ones overflow
    for name, words in {"here": (), "haswell": ("qemu-x86_64", "-cpu", "Haswell")}.items():
        command = (*words, sys.executable, "-c", RUNS, name)
        subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True, timeout=300)
    np.testing.assert_allclose(np.load("here.npy"), np.load("haswell.npy"), atol=1e-4)


def test_the_file_keeps_the_contract_of_serving(source: bytes, quantized: onnx.ModelProto, workspace: Path) -> None:
    quantized = onnx.load_from_string(quantized.SerializeToString())
    onnx.helper.set_model_props(quantized, int8.provenance(source, 100, 0.75))
    newest_opset, newest_ir = graph.RUNTIMES[graph.OLDEST_RUNTIME]
    assert [(opset.domain, opset.version <= newest_opset) for opset in quantized.opset_import] == [("", True)]
    assert quantized.ir_version <= newest_ir
    content = quantized.SerializeToString()
    for path in (str(ROOT), str(Path.cwd()), sys.prefix, "/tmp", ".py"):
        assert path.encode() not in content
    pixels = images(3)
    assert Predictor(Path("model.int8.onnx"), CPU, content=content)(pixels).shape == (3, CLASSES)
    before, after = (onnx.load_from_string(model) for model in (source, content))
    assert (after.graph.input, after.graph.output, after.doc_string) == (
        before.graph.input,
        before.graph.output,
        before.doc_string,
    )


def test_the_metadata_say_what_it_is_and_what_it_was_made_of(source: bytes) -> None:
    found = int8.provenance(source, 100, 0.75)
    assert (found["precision"], found["test_accuracy"], found["resize"]) == ("int8", "0.75", "stretch")
    assert found["quantized_from"] == f"sha256:{sha256(source).hexdigest()}"
    assert json.loads(found["quantization"])["calibration_images"] == 100


def test_the_same_model_and_images_give_the_same_bytes(source: bytes, quantized: onnx.ModelProto) -> None:
    again = int8.quantize(source, images(100))
    assert again.SerializeToString(deterministic=True) == quantized.SerializeToString(deterministic=True)
