"""What the server says of itself and of its model, and how it answers what it does not have."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests
import starlette.routing
from starlette.requests import Request
from starlette.responses import Response

from serving.server import described, routes
from serving.server.limits import Limits
from serving.server.service import Service
from tests.support import served
from tests.support.params import ROOT
from tests.support.server import Running, running

MODEL = "/v2/models/classifier"
OPENAPI: dict[str, Any] = json.loads((ROOT / "serving/server/openapi.json").read_text())
# What a path of the description stands for here.
PARTS = {"model": "classifier", "version": "1", "name": "0.png"}  # of which the last is not there: it has no samples
PATHS = {path: path.format_map(PARTS) for path in OPENAPI["paths"]}
TOKEN = "geheim ü".encode()
OPEN = {"/", "/v2/health/live", "/v2/health/ready"}


def get(server: Running, path: str) -> Any:
    answer = requests.get(server.url + path, timeout=10)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def test_health_is_what_the_protocol_and_what_kserves_client_reads(server: Running) -> None:
    assert get(server, "/v2/health/live") == {"live": True}
    assert get(server, "/v2/health/ready") == {"ready": True, "live": True}


def test_the_server_says_what_it_is(server: Running) -> None:
    found = get(server, "/v2")
    assert found["name"] == "classifier-pipeline"
    assert found["version"] == OPENAPI["info"]["version"]
    assert f'\nversion = "{found["version"]}"\n' in (ROOT / "pyproject.toml").read_text()
    assert {"binary_tensor_data", "classification", "statistics"} <= set(found["extensions"])


@pytest.mark.parametrize("path", [MODEL, f"{MODEL}/versions/1"])
def test_the_model_says_what_it_takes_and_gives(server: Running, path: str) -> None:
    found = get(server, path)
    assert (found["name"], found["versions"]) == ("classifier", ["1"])
    assert found["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 4, 4, 1]}]
    outputs = [(one["name"], one["datatype"], one["shape"]) for one in found["outputs"]]
    assert outputs == [("logits", "FP32", [-1, 2]), ("probabilities", "FP32", [-1, 2])]
    assert get(server, f"{path}/ready") == {"name": "classifier", "ready": True}
    config = get(server, f"{path}/config")
    assert (config["name"], config["max_batch_size"]) == ("classifier", Limits().batch)
    assert json.loads(config["parameters"]["class_names"]["string_value"]) == served.CLASSES
    assert get(server, f"{path}/stats") == get(server, "/v2/models/stats")


def post(server: Running, path: str, body: str = "") -> requests.Response:
    return requests.post(server.url + path, body, timeout=10)


@pytest.mark.parametrize("body", ["", "{}", '{"ready": true}', '{"ready": false}'])
def test_the_index_has_the_one_model(server: Running, body: str) -> None:
    expected = [{"name": "classifier", "version": "1", "state": "READY", "reason": ""}]
    assert post(server, "/v2/repository/index", body).json() == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("[", "failed to parse the request's JSON: Expecting value: line 1 column 2 (char 1)"),
        ("[" * 100_000, "failed to parse the request's JSON: nested too deeply"),
        ("[]", "the request's JSON is [], not an object"),
        ('{"ready": 1}', "ready is not true or false"),
    ],
    ids=range(4),
)
def test_an_index_that_is_asked_for_wrongly_is_refused(server: Running, body: str, message: str) -> None:
    answer = post(server, "/v2/repository/index", body)
    assert (answer.status_code, answer.json()) == (400, {"error": message})


def test_an_index_may_be_asked_for_in_chunks_and_is_bounded(server: Running) -> None:
    url = f"{server.url}/v2/repository/index"
    assert requests.post(url, iter([b'{"rea', b'dy": true}']), timeout=10).status_code == 200
    answer = requests.post(url, b" " * (Limits().json + 1), timeout=10)
    assert (answer.status_code, answer.json()) == (413, {"error": "the body has more than 4,194,304 bytes"})


@pytest.mark.parametrize("what", ["load", "unload"])
def test_nothing_is_loaded_or_unloaded_by_request(server: Running, what: str) -> None:
    answer = post(server, f"/v2/repository/models/other/{what}")
    assert answer.status_code == 501
    assert "the registry says which one serves" in answer.json()["error"]


@pytest.mark.parametrize("path", ["", "/ready", "/config", "/stats"])
def test_another_model_or_version_is_not_found(server: Running, path: str) -> None:
    for name, message in {
        "other": "unknown model 'other'; the one that is served is 'classifier'",
        "classifier/versions/2": "version '2' of 'classifier' does not answer; '1' does",
        "%2e%2e": "unknown model '..'; the one that is served is 'classifier'",
        "%00": "unknown model '\\x00'; the one that is served is 'classifier'",
    }.items():
        answer = requests.get(f"{server.url}/v2/models/{name}{path}", timeout=10)
        assert (answer.status_code, answer.json()) == (404, {"error": message})


@pytest.mark.parametrize(
    "path", ["/v1", "/v2/", "/v2/health", f"{MODEL}/", f"{MODEL}/versions", "/docs", "//", "/x" * 900]
)
def test_what_is_not_there_is_not_found_and_leads_nowhere(server: Running, path: str) -> None:
    answer = requests.get(server.url + path, headers={"host": "elsewhere.example"}, allow_redirects=False, timeout=10)
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}
    assert len(answer.content) < 200
    assert "elsewhere" not in str(answer.headers)


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/v2"), ("GET", "/predict"), ("DELETE", "/"), ("GET", f"{MODEL}/infer")]
)
def test_another_method_is_refused_with_those_that_are_not(server: Running, method: str, path: str) -> None:
    answer = requests.request(method, server.url + path, timeout=10)
    assert (answer.status_code, answer.json()) == (405, {"error": f"{method} is not for {path!r}"})
    assert set(answer.headers["allow"].split(", ")) == ({"POST"} if method == "GET" else {"GET", "HEAD"})


def methods(path: str) -> Iterator[str]:
    for method in OPENAPI["paths"][path]:
        if method != "parameters":
            yield method


def test_what_answers_get_answers_head_with_the_same_headers_and_no_body(server: Running) -> None:
    for path in (path for path in PATHS if "get" in methods(path) and path != "/metrics"):  # which counts the bytes
        head, full = (requests.request(method, server.url + PATHS[path], timeout=10) for method in ("HEAD", "GET"))
        assert (head.status_code, head.content) == (404 if "{name}" in path else 200, b"")
        assert {**head.headers, "date": ""} == {**full.headers, "date": ""}


def test_every_route_is_described_and_every_description_is_a_route() -> None:
    async def endpoint(_: Request) -> Response:
        raise NotImplementedError

    service = cast(Service, SimpleNamespace())
    there = {
        (route.path, method.lower())
        for route in routes.routes(service, endpoint, endpoint).routes
        if isinstance(route, starlette.routing.Route)
        for method in (route.methods or ())
        if method != "HEAD"
    }
    assert there == {(path, method) for path in PATHS for method in methods(path)}


def test_the_description_is_served_as_it_is_and_names_this_model(server: Running) -> None:
    assert get(server, "/openapi.json") == OPENAPI
    assert OPENAPI["components"]["parameters"]["Model"]["schema"]["enum"] == [described.MODEL]
    for name in re.findall(r'"\$ref": "#/([^"]*)"', json.dumps(OPENAPI)):
        found = OPENAPI
        for part in name.split("/"):
            found = found[part]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that wants a token."""
    folder: Path = tmp_path_factory.mktemp("guarded")
    (folder / "models").mkdir()
    (folder / "models/model.onnx").write_bytes(served.model().SerializeToString())
    with running(folder, TOKEN=TOKEN.decode()) as found:
        yield found


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_answered_but_what_is_described_as_open(guarded: Running, path: str) -> None:
    url = guarded.url + PATHS[path]
    for method in methods(path):
        for wrong in (b"", b"Bearer", b"Bearer geheim", TOKEN, b"Bearer  geheim", b"Basic " + TOKEN, b"Bearer" + TOKEN):
            answer = requests.request(method, url, headers={"authorization": wrong} if wrong else {}, timeout=10)
            if path in OPEN:
                assert answer.status_code == 200
                assert OPENAPI["paths"][path][method]["security"] == []
            else:
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
                assert answer.json() == {"error": "Authorization: Bearer, with the token of this server, is expected"}
                assert "401" in OPENAPI["paths"][path][method]["responses"]
        for right in (b"Bearer " + TOKEN, b"bearer  " + TOKEN + b" "):  # as RFC 9110 lets it be written
            answer = requests.request(method, url, headers={"authorization": right}, timeout=10)
            assert answer.status_code in (200, 400, 404, 411, 415, 501)


def test_a_path_that_is_not_there_tells_nobody_without_the_token(guarded: Running) -> None:
    assert requests.get(f"{guarded.url}/anything", timeout=10).status_code == 401
    assert "geheim" not in guarded.log.read_text()
