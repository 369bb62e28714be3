"""Requests for the model, as a client sends them over HTTP; what they may say is what test_tensors.py tests."""

import gzip
import io
import json
import zlib
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from numpy.typing import NDArray
from PIL import Image

from serving.model import Predictor
from serving.server.limits import Limits
from tests.support import served
from tests.support.server import Running

INFER = "/v2/models/classifier/infer"
LENGTH = "Inference-Header-Content-Length"
IMAGES = np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1) * 5
LIMITS = Limits()


def request(images: NDArray[np.uint8] = IMAGES, **others: object) -> bytes:
    one = {"name": "images", "datatype": "UINT8", "shape": images.shape, "data": images.ravel().tolist()}
    return json.dumps({"inputs": [one], **others}).encode()


def post(server: Running, path: str, body: Any, **headers: str) -> requests.Response:
    return requests.post(
        server.url + path, body, headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=30
    )


def error(answer: requests.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    return answer.status_code, answer.json()["error"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.float32]]:
    """What the model says of IMAGES where nobody is in between."""
    path: Path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(served.model().SerializeToString())
    return Predictor(path).outputs(IMAGES)


@pytest.mark.parametrize("path", [INFER, "/v2/models/classifier/versions/1/infer"])
def test_the_answer_in_json_is_that_of_the_predictor(
    server: Running, path: str, expected: dict[str, NDArray[np.float32]]
) -> None:
    found = post(server, path, request(id="42")).json()
    assert (found["id"], found["model_name"], found["model_version"]) == ("42", "classifier", "1")
    for output in found["outputs"]:
        values = np.array(output["data"], np.float32).reshape(output["shape"])
        assert values.tolist() == expected[output["name"]].tolist()


@pytest.mark.parametrize("path", [INFER, "/v2/models/classifier/versions/1/infer"])
def test_a_raw_request_gets_a_binary_answer(
    server: Running, path: str, expected: dict[str, NDArray[np.float32]]
) -> None:
    answer = post(server, path, IMAGES.tobytes(), **{LENGTH: "0"})
    length = int(answer.headers[LENGTH])
    assert json.loads(answer.content[:length])["outputs"][0]["parameters"] == {"binary_data_size": 24}
    assert answer.content[length:] == expected["logits"].tobytes() + expected["probabilities"].tobytes()


@pytest.mark.parametrize("kind", ["application/octet-stream", "Application/Octet-Stream; a=b", ""])
def test_a_raw_request_may_say_that_it_is_bytes_or_nothing(server: Running, kind: str) -> None:
    assert post(server, INFER, IMAGES.tobytes(), **{LENGTH: "0", "content_type": kind}).status_code == 200


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/json; charset=utf-8", "application/x-www-form-urlencoded", "image/png", "a" * 200],
)
def test_a_raw_request_that_says_it_is_something_else_is_not_taken_for_pixels(server: Running, kind: str) -> None:
    assert error(post(server, INFER, b"a" * 16, **{LENGTH: "0", "content_type": kind})) == (
        415,
        f"content-type is {kind[:80]!r}; application/octet-stream is expected, as an Inference-Header-Content-Length "
        "of 0 says that the body is nothing but pixels",
    )


@pytest.mark.parametrize("path", [INFER, "/v2/repository/index"])
@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
def test_a_body_may_be_packed(server: Running, path: str, encoding: str, pack: Any) -> None:
    body = request() if path == INFER else b'{"ready": true}'
    assert post(server, path, pack(body), content_encoding=encoding.upper()).status_code == 200


@pytest.mark.parametrize(
    ("encoding", "body", "refused"),
    [
        ("br", b"", (415, "content-encoding is 'br'; gzip or deflate can be unpacked")),
        ("gzip, gzip", b"", (415, "content-encoding is 'gzip, gzip'; gzip or deflate can be unpacked")),
        ("gzip", b"{}", (400, "the body is not gzip: incorrect header check")),
        ("gzip", gzip.compress(request())[:-1], (400, "the body ends before its gzip data do")),
        ("deflate", zlib.compress(request()) + b"12", (400, "2 bytes follow the deflate data of the body")),
        ("gzip", gzip.compress(bytes(LIMITS.body + 1)), (413, "the body has more than 67,108,864 bytes")),
        ("gzip", gzip.compress(bytes(LIMITS.json + 1)), (413, "more than 4,194,304 bytes of JSON; send the images as")),
    ],
    ids=range(7),
)
def test_a_body_that_is_packed_otherwise_or_too_much_is_refused(
    server: Running, encoding: str, body: bytes, refused: tuple[int, str]
) -> None:
    status, message = error(post(server, INFER, body, content_encoding=encoding))
    assert (status, message.startswith(refused[1])) == (refused[0], True), message


MANY = np.zeros((500, 4, 4, 1), np.uint8)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("deflate, gzip", "gzip"),
        ("br;q=1.0, Deflate ;q=0.5", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=0.0", None),
        ("gzip;q=0.000, deflate;q=0.", None),
        ("gzip;q=0.001", "gzip"),
        ("br", None),
        ("", None),
        ("identity", None),
    ],
)
def test_a_long_answer_is_packed_as_the_client_understands_it(
    server: Running, accepted: str, encoding: str | None
) -> None:
    plain = post(server, INFER, request(MANY), accept_encoding="identity")
    answer = post(server, INFER, request(MANY), accept_encoding=accepted)
    assert answer.headers.get("content-encoding") == encoding
    assert answer.json() == plain.json(), "requests unpacks it"
    assert (int(answer.headers["content-length"]) < len(plain.content)) == (encoding is not None)
    assert "content-encoding" not in post(server, INFER, request(), accept_encoding=accepted).headers, "it is short"


def test_a_binary_answer_may_be_packed_too(server: Running) -> None:
    answer = post(server, INFER, MANY.tobytes(), **{LENGTH: "0", "accept_encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert len(answer.content) - int(answer.headers[LENGTH]) == 500 * 2 * 2 * 4, "the length is that of what was packed"


@pytest.mark.parametrize("path", [INFER, "/predict"])
def test_a_request_without_a_body_is_refused(server: Running, path: str) -> None:
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", path)  # requests would say that there are 0 bytes
    connection.endheaders()
    answer = connection.getresponse()
    message = "the request has no body: neither Content-Length nor Transfer-Encoding: chunked"
    assert (answer.status, json.loads(answer.read())) == (411, {"error": message})
    connection.close()


@pytest.mark.parametrize("path", [INFER, "/predict"])
def test_a_body_in_chunks_is_received_and_bounded(server: Running, path: str) -> None:
    body, kind = (request(), "") if path == INFER else (png(IMAGES[0]), "image/png")
    assert post(server, path, iter([body[:9], body[9:]]), content_type=kind).status_code == 200
    most = LIMITS.body if path == INFER else LIMITS.upload
    chunk = bytes(2**20)
    answer = post(server, path, iter([chunk] * (most // len(chunk)) + [b"1"]), content_type=kind)
    assert error(answer) == (413, f"the body has more than {most:,} bytes")


@pytest.mark.parametrize(
    ("length", "refused"),
    [
        ("-1", (400, "Inference-Header-Content-Length is not a number of bytes")),
        ("1e3", (400, "Inference-Header-Content-Length is not a number of bytes")),
        ("9" * 12, (400, "Inference-Header-Content-Length is not a number of bytes")),
        ("99999999999", (400, "Inference-Header-Content-Length is 99999999999, the body has 2 bytes")),
    ],
)
def test_a_length_of_the_json_that_cannot_be_is_refused(server: Running, length: str, refused: tuple[int, str]) -> None:
    assert error(post(server, INFER, b"{}", **{LENGTH: length})) == refused


def test_what_is_asked_for_is_bounded(server: Running) -> None:
    raw = {LENGTH: "0"}
    assert post(server, INFER, bytes(16 * LIMITS.images), **raw).status_code == 200
    assert error(post(server, INFER, bytes(16 * (LIMITS.images + 1)), **raw)) == (
        413,
        "4097 images in a request; 4096 are the most",
    )


def png(image: NDArray[np.uint8], format_: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, format_)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["image/png", "image/webp", "image/x-whatever", "IMAGE/PNG; a=b"])
def test_an_image_file_may_be_the_body_whatever_kind_of_image_it_says_it_is(
    server: Running, kind: str, expected: dict[str, NDArray[np.float32]]
) -> None:
    found = post(server, "/predict", png(IMAGES[2]), content_type=kind).json()
    probabilities = expected["probabilities"][2]
    label = served.CLASSES[probabilities.argmax()]
    assert (found["label"], found["probability"]) == (label, probabilities.max())
    assert [one["label"] for one in found["classes"]] == ["light", "dark"]
    assert {one["label"]: one["probability"] for one in found["classes"]} == dict(
        zip(served.CLASSES, probabilities.tolist(), strict=True)
    )
    assert (found["model_name"], found["model_version"], len(found["sha256"])) == ("classifier", "1", 64)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "BMP"])
def test_an_image_file_may_be_in_a_form_beside_other_fields(server: Running, format_: str) -> None:
    file = png(np.full((9, 7), 255, np.uint8), format_)
    answer = requests.post(f"{server.url}/predict", {"a": "b"}, files={"whatever": ("../x", file)}, timeout=10)
    assert answer.json()["label"] == "light"


@pytest.mark.parametrize(
    ("kind", "body", "refused"),
    [
        ("", b"", (415, "content-type is ''; image/png, image/jpeg, image/webp, image/bmp or multipart/form-data is")),
        ("text/plain", b"", (415, "content-type is 'text/plain'; image/png")),
        ("image/png", b"", (400, "the image: not a PNG, JPEG, WebP or BMP image")),
        ("image/png", b"GIF89a", (400, "the image: not a PNG, JPEG, WebP or BMP image")),
        ("image/png", png(IMAGES[0])[:50], (400, "the image: broken image (")),
        ("multipart/form-data", b"", (400, "multipart/form-data without a boundary")),
        ("multipart/form-data; boundary=a", b"", (400, "the form ends too early, or is none of that boundary")),
        ("multipart/form-data; boundary=a", b"--b--", (400, "the form cannot be read: ")),
        ("multipart/form-data; boundary=a", b"--a--\r\n", (400, "0 files in the form; one is expected, as by curl -F")),
    ],
    ids=range(9),
)
def test_what_is_no_image_file_is_refused(server: Running, kind: str, body: bytes, refused: tuple[int, str]) -> None:
    status, message = error(post(server, "/predict", body, content_type=kind))
    assert (status, message[: len(refused[1])]) == refused


def test_a_form_with_two_files_or_many_parts_is_refused(server: Running) -> None:
    two = requests.post(f"{server.url}/predict", files={"a": png(IMAGES[0]), "b": b""}, timeout=10)
    assert error(two) == (400, "2 files in the form; one is expected, as by curl -F image=@FILE")
    fields = {str(number): "" for number in range(9)}
    many = requests.post(f"{server.url}/predict", fields, files={"a": b""}, timeout=10)
    assert error(many) == (400, "more than 8 parts in the form")
