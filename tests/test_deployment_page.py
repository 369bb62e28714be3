"""docs/deployment.md on the server: routes, limits and lines of code are those of the server."""

import json
import re
from dataclasses import asdict

from ruamel.yaml import YAML

from serving.server.app import COMPRESSED_FROM
from serving.server.limits import Limits
from serving.server.upload import PARTS
from tests.support.params import ROOT

PAGE = (ROOT / "docs/deployment.md").read_text().partition("## The server\n")[2].partition("\n## ")[0]


def test_the_limits_on_the_page_are_those_of_the_server() -> None:
    found: dict[str, float] = {}
    for names, values in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([\d, ]+) \|", PAGE, re.MULTILINE):
        found |= dict(zip(re.findall(r"\w+", names), map(float, values.split(",")), strict=True))
    assert found == asdict(Limits())


def test_what_is_said_of_forms_and_packed_answers_is_what_the_server_does() -> None:
    assert f"which may have {PARTS} parts" in PAGE
    description = json.loads((ROOT / "serving/server/openapi.json").read_text())["info"]["description"]
    assert f"with {COMPRESSED_FROM:,} bytes or more infer sends gzip or deflate" in description
    assert f"an answer of infer is, from {COMPRESSED_FROM:,} bytes" in PAGE


def test_every_route_and_status_of_the_description_is_on_the_page() -> None:
    paths = json.loads((ROOT / "serving/server/openapi.json").read_text())["paths"]
    routes = re.findall(r"[\w./{}]*/[\w./{}]*", PAGE.partition("| route |")[2].partition("**Binary")[0])
    for path in paths:
        *_, last = re.split(r"/v2/models/\{model\}(?:/versions/\{version\})?|/v2/repository/models", path)
        assert not last or any(route.endswith(last) for route in (*routes, "/{model}/unload")), path
    methods = [method for path in paths.values() for method in path.values() if isinstance(method, dict)]
    errors = {status for method in methods for status in method["responses"]} - {"200"}
    assert set(re.findall(r"\d{3}", PAGE.partition("| status |")[2].partition("**Limits**")[0])) == errors | {"405"}


def test_a_pod_is_given_the_time_that_the_server_takes_to_stop() -> None:
    pod = YAML(typ="safe").load(PAGE.partition("```yaml\n")[2].partition("```")[0])["spec"]
    (container,) = pod["containers"]
    sleep_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= sleep_s + Limits().drain_s + Limits().stop_s
