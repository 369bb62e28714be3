"""The clients that people have, as they come from the registry: each gets the labels of the model, and our errors.

Handwritten digits, and a model that is fitted to them by least squares: what a real one answers, without a training.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from serving.model import Predictor
from tests.support import served
from tests.support.environment import environment, output
from tests.support.params import ROOT
from tests.support.server import Running, running

pytestmark = pytest.mark.registry

COUNT = 200  # images


class Digits(NamedTuple):
    server: Running
    images: Path  # .npy, uint8 [COUNT, 8, 8, 1]
    labels: list[int]  # what the model says where nobody is in between
    names: list[str]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Digits]:
    """A server whose model tells handwritten digits apart."""
    folder: Path = tmp_path_factory.mktemp("digits")
    (folder / "models").mkdir()
    pixels, truth = load_digits(return_X_y=True)
    images = (pixels * 15).astype(np.uint8).reshape(-1, 8, 8, 1)
    names = [f"digit {number}" for number in range(10)]
    served.save(served.linear(fitted(images, truth), (8, 8, 1), names), str(folder / "models/model.onnx"))
    np.save(folder / "images.npy", images[:COUNT])
    labels = Predictor(folder / "models/model.onnx")(images[:COUNT]).argmax(1)
    assert (labels == truth[:COUNT]).mean() > 0.9
    with running(folder) as server:
        yield Digits(server, folder / "images.npy", labels.tolist(), names)
        assert "Traceback" not in server.log.read_text()


def fitted(images: NDArray[np.uint8], truth: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the weights of `served.linear` that are nearest to logits of 10 for the right class and 0 else."""
    pixels = np.column_stack([images.reshape(len(images), -1), np.ones(len(images))])
    weights: NDArray[np.float64] = np.linalg.lstsq(pixels, 10 * np.eye(10)[truth])[0]
    return weights.astype(np.float32)


TRITON = """
import asyncio, json, sys
import numpy as np
import tritonclient.http as http
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException

url, images = sys.argv[1].removeprefix("http://"), np.load(sys.argv[2])
client = http.InferenceServerClient(url, concurrency=4)


def inputs(part, binary=True):
    one = http.InferInput("images", list(part.shape), "UINT8")
    one.set_data_from_numpy(part, binary_data=binary)
    return [one]


def outputs(binary, classes=0):
    return [http.InferRequestedOutput(name, binary, classes) for name in ("probabilities", "logits")]


def labels(result, name="probabilities"):
    return result.as_numpy(name).argmax(1).tolist()


def infer(binary_in=True, binary_out=True, **options):
    return labels(client.infer("classifier", inputs(images, binary_in), outputs=outputs(binary_out), **options))


found = {
    "binary": infer(),
    "json": infer(False, False),
    "json, answered in binary": infer(False, True),
    "binary, answered in json": infer(True, False),
    "both outputs by default": labels(client.infer("classifier", inputs(images)), "logits"),
    "by version": infer(model_version="1"),
}
for packed in ("gzip", "deflate"):
    for binary in (True, False):
        found[f"{packed} {binary}"] = infer(
            binary, binary, request_compression_algorithm=packed, response_compression_algorithm=packed
        )
several = [client.async_infer("classifier", inputs(images[n : n + 1]), request_id=str(n)) for n in range(len(images))]
results = [one.get_result() for one in several]
found["one by one, async"] = [label for result in results for label in labels(result)]
assert [result.get_response()["id"] for result in results] == [str(n) for n in range(len(images))]
for binary in (True, False):
    result = client.infer("classifier", inputs(images), outputs=outputs(binary, 3))
    best = result.as_numpy("probabilities")
    assert best.shape == (len(images), 3)
    texts = [text.decode() if isinstance(text, bytes) else text for text in best[:, 0].tolist()]
    found[f"classification {binary}"] = [int(text.split(":")[1]) for text in texts]
    assert all(text.split(":")[2] == f"digit {text.split(':')[1]}" for text in texts)
    assert all(0 <= float(text.split(":")[0]) <= 1 for text in texts)


async def asynchronously():
    async with aio.InferenceServerClient(url) as asked:
        assert await asked.is_server_ready() and await asked.is_model_ready("classifier")
        assert (await asked.get_model_metadata("classifier"))["name"] == "classifier"
        parts = [asked.infer("classifier", inputs(images[n : n + 10])) for n in range(0, len(images), 10)]
        ways = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}
        packed = asked.infer("classifier", inputs(images), outputs=outputs(True), **ways)
        return [label for result in await asyncio.gather(*parts) for label in labels(result)], labels(await packed)

found["aio"], found["aio, packed"] = asyncio.run(asynchronously())

assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("classifier") and client.is_model_ready("classifier", "1")
assert not client.is_model_ready("other") and not client.is_model_ready("classifier", "2")
about = {
    "server": client.get_server_metadata(),
    "model": client.get_model_metadata("classifier", "1"),
    "config": client.get_model_config("classifier"),
    "index": client.get_model_repository_index(),
    "all": client.get_inference_statistics(),
    "one": client.get_inference_statistics("classifier", "1"),
}
wrong = http.InferInput("images", [1, 9, 8, 1], "UINT8")
wrong.set_data_from_numpy(np.zeros((1, 9, 8, 1), np.uint8))
other = http.InferInput("image", [1, 8, 8, 1], "UINT8")
other.set_data_from_numpy(images[:1])
errors = {}
for what, ask in {
    "model": lambda: client.infer("other", inputs(images[:1])),
    "version": lambda: client.infer("classifier", inputs(images[:1]), model_version="2"),
    "metadata": lambda: client.get_model_metadata("other"),
    "shape": lambda: client.infer("classifier", [wrong]),
    "input": lambda: client.infer("classifier", [other]),
    "inputs": lambda: client.infer("classifier", inputs(images[:1]) * 2),
    "output": lambda: client.infer("classifier", inputs(images[:1]), outputs=[http.InferRequestedOutput("labels")]),
    "deadline": lambda: client.infer("classifier", inputs(images[:1]), timeout=1),
    "load": lambda: client.load_model("classifier"),
    "unload": lambda: client.unload_model("classifier"),
    "memory": lambda: client.register_system_shared_memory("a", "/a", 1),
}.items():
    try:
        ask()
    except InferenceServerException as error:
        errors[what] = [error.status(), error.message()]
print(json.dumps([found, about, errors]))
"""


def test_tritons_client(digits: Digits, tmp_path: Path) -> None:
    client = environment(tmp_path / "client", "tritonclient[http]")
    found, about, errors = json.loads(output(client / "python", "-c", TRITON, digits.server.url, digits.images))
    assert len(found) == 15
    assert {way: labels == digits.labels for way, labels in found.items()} == dict.fromkeys(found, True)
    assert about["server"]["name"] == "classifier-pipeline"
    assert about["model"]["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}]
    assert about["config"]["input"][0]["dims"] == [8, 8, 1]
    assert about["index"] == [{"name": "classifier", "version": "1", "state": "READY", "reason": ""}]
    assert about["all"] == about["one"]
    assert about["all"]["model_stats"][0]["inference_count"] == 15 * COUNT
    assert errors == {
        "model": ["404", "unknown model 'other'; the one that is served is 'classifier'"],
        "version": ["404", "version '2' of 'classifier' does not answer; '1' does"],
        "metadata": ["404", "unknown model 'other'; the one that is served is 'classifier'"],
        "shape": ["400", "shape of input 'images' is [1, 9, 8, 1]; [-1, 8, 8, 1] is expected, with 1 or more"],
        "input": ["400", "unexpected inference input 'image'; the model takes 'images'"],
        "inputs": ["400", "2 inputs; one object is expected: the model takes 'images' alone"],
        "output": ["400", "unexpected inference output 'labels'; the model has logits, probabilities"],
        "deadline": ["504", "the deadline passed while the request waited for the model"],
        "load": ["501", "models are neither loaded nor unloaded by request: the registry says which one serves"],
        "unload": ["501", "models are neither loaded nor unloaded by request: the registry says which one serves"],
        "memory": ["404", "there is no '/v2/systemsharedmemory/region/a/register'"],
    }

    page = (ROOT / "docs/deployment.md").read_text().partition("## The server\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert code.count("28, 28") == code.count("127.0.0.1:8080") == 1
    code = code.replace("28, 28", "8, 8").replace("127.0.0.1:8080", digits.server.url.removeprefix("http://"))
    black = Predictor(digits.server.log.with_name("models") / "model.onnx")(np.zeros((2, 8, 8, 1), np.uint8))
    assert output(client / "python", "-c", code) == f"{black.argmax(1)}\n"


KSERVE = """
import asyncio, json, sys
import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

url, images = sys.argv[1], np.load(sys.argv[2])


def request(binary_in, binary_out):
    one = InferInput("images", list(images.shape), "UINT8")
    one.set_data_from_numpy(images, binary_data=binary_in)
    wanted = [RequestedOutput("probabilities", parameters={"binary_data": binary_out})]
    return InferRequest("classifier", [one], request_id="7", request_outputs=wanted)


async def main():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url) is True
    assert await client.is_server_ready(url) is True
    assert await client.is_model_ready(url, "classifier") is True
    found = {}
    for ways in ((True, True), (True, False), (False, True), (False, False)):
        answer = await client.infer(url, request(*ways), model_name="classifier")
        assert (answer.id, answer.model_name) == ("7", "classifier")  # it forgets the version
        found[str(ways)] = answer.outputs[0].as_numpy().argmax(1).tolist()
    one = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.tolist()}
    answer = await client.infer(url, {"inputs": [one]}, model_name="classifier")
    found["dictionary"] = answer.outputs[1].as_numpy().argmax(1).tolist()
    errors = []
    for ask in (
        client.infer(url, request(True, True), model_name="other"),
        client.infer(url, {"inputs": []}, model_name="classifier"),
    ):
        try:
            await ask
        except httpx.HTTPStatusError as error:
            errors.append([error.response.status_code, str(error)])
    unready = await client.is_model_ready(url, "other")
    print(json.dumps([found, errors, unready]))

asyncio.run(main())
"""


def test_kserves_rest_client(digits: Digits, tmp_path: Path) -> None:
    client = environment(tmp_path / "client", "kserve")
    found, errors, unready = json.loads(output(client / "python", "-c", KSERVE, digits.server.url, digits.images))
    assert {way: labels == digits.labels for way, labels in found.items()} == dict.fromkeys(found, True)
    assert len(found) == 5
    (unknown, empty) = errors
    assert unknown[0] == 404
    assert unknown[1].startswith("unknown model 'other'; the one that is served is 'classifier', '404 Not Found'")
    assert empty[0] == 400
    assert empty[1].startswith("0 inputs; one object is expected: the model takes 'images' alone, '400 Bad Request'")
    assert unready is False


def curl(*words: str | Path) -> Any:
    return json.loads(output("curl", "--silent", "--show-error", "--fail-with-body", *words))


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl(digits: Digits, tmp_path: Path) -> None:
    url, images = digits.server.url, np.load(digits.images)
    for number in range(10):
        file = tmp_path / f"{number}.png"
        Image.fromarray(images[number, ..., 0]).save(file)
        expected = digits.names[digits.labels[number]]
        assert curl("-F", f"image=@{file}", f"{url}/predict")["label"] == expected
        body = ("-H", "content-type: image/png", "--data-binary", f"@{file}", f"{url}/predict")
        assert curl(*body)["label"] == expected
        assert curl("-H", "transfer-encoding: chunked", "-H", "expect: 100-continue", *body)["label"] == expected
    request = {
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": images.shape, "data": images.tolist()}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 1}}],
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    words = ("--compressed", "-d", f"@{tmp_path}/request.json", f"{url}/v2/models/classifier/infer")
    classified = [text.split(":")[1] for text in curl(*words)["outputs"][0]["data"]]
    assert classified == [str(label) for label in digits.labels]
    refused = subprocess.run(("curl", "-sSf", f"{url}/v2/models/other"), capture_output=True, text=True, check=False)
    assert (refused.returncode, "404" in refused.stderr) == (22, True)


SETTINGS = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "501"]
positive_data_acceptance.enabled = false
"""
POSITIVE = """
[checks]
enabled = false
positive_data_acceptance.enabled = true
"""


def narrow(contents: dict[str, Any]) -> dict[str, Any]:
    """Return the description of JSON requests for images of one size, each of which has to be answered."""
    schemas, infer = contents["components"]["schemas"], "/v2/models/{model}/infer"
    one = schemas["RequestInput"]
    one["required"].append("data")
    del one["properties"]["parameters"]
    one["properties"]["shape"] = {"const": [2, 8, 8, 1]}
    # Named one by one, as are the others below: a generator takes 1.0, too, for a whole number.
    one["properties"]["data"] = {"type": "array", "items": {"enum": [0, 1, 255]}, "minItems": 128, "maxItems": 128}
    schemas["InferenceRequest"]["properties"]["parameters"]["properties"]["timeout"] = {"enum": [0, 10**7]}
    schemas["RequestOutput"]["properties"]["parameters"]["properties"]["classification"] = {"enum": [1, 2, 99]}
    contents["paths"] = {infer: contents["paths"][infer]}
    contents["paths"][infer]["post"]["parameters"] = []
    bodies = contents["components"]["requestBodies"]["Inference"]["content"]
    bodies["application/json"].pop("example")
    del bodies["application/octet-stream"]
    return contents


def test_schemathesis_finds_the_server_to_be_as_its_openapi_says(tmp_path: Path) -> None:
    tools = environment(tmp_path / "tools", "schemathesis", "openapi-spec-validator")
    openapi = ROOT / "serving/server/openapi.json"
    output(tools / "openapi-spec-validator", openapi)
    (tmp_path / "narrow.json").write_text(json.dumps(narrow(json.loads(openapi.read_text()))))

    def run(name: str, settings: str, *words: str | Path) -> int:
        """Return how many requests were sent."""
        (tmp_path / name).write_text(settings)
        options = ("--seed", "1", "--suppress-health-check", "all", "--warnings", "off", "--no-color")
        printed = output(tools / "st", "--config-file", tmp_path / name, "run", *options, *words, folder=tmp_path)
        passed = re.search(r"(\d+) generated, \1 passed", printed)
        assert passed, printed
        return int(passed[1])

    (tmp_path / "models").mkdir()
    # Images of so odd a size that text that is sent as a raw request is not by chance as long as one.
    served.save(served.model(inputs=[served.images("batch", 97, 89, 1)]), str(tmp_path / "models/model.onnx"))
    with running(tmp_path) as server:
        assert run("all.toml", SETTINGS, "-n", "20", f"{server.url}/openapi.json") > 500
        assert "Traceback" not in server.log.read_text()
    served.save(served.model(inputs=[served.images("batch", 8, 8, 1)]), str(tmp_path / "models/model.onnx"))
    with running(tmp_path) as server:
        words = ("--mode", "positive", "--url", server.url, tmp_path / "narrow.json")
        assert run("positive.toml", POSITIVE, "-n", "100", *words) > 50
