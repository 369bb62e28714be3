"""/metrics and Triton's statistics: Prometheus can read them, and the counts are true."""

import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from serving.server.metrics import SECONDS, Durations, Histogram, Metrics, Statistics
from tests.support import served
from tests.support.server import Running, running

INFER = "/v2/models/classifier/infer"
RAW = {"Inference-Header-Content-Length": "0"}

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Running]:
    """A server that has answered nothing yet."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.onnx").write_bytes(served.model().SerializeToString())
    with running(tmp_path) as found:
        yield found


def samples(text: str) -> Samples:
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation for family in families)
    found = [sample for family in families for sample in family.samples]
    assert len({(one.name, *sorted(one.labels.items())) for one in found}) == len(found)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for one in found}


def scraped(server: Running) -> Samples:
    answer = requests.get(f"{server.url}/metrics", timeout=10)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return samples(answer.text)


def test_the_counts_are_those_of_the_requests_that_were_sent(fresh: Running) -> None:
    dark, light = bytes(16), bytes([255]) * 16
    with requests.Session() as session:
        version = "/v2/models/classifier/versions/1/infer"
        for path, body in ((INFER, dark), (INFER, light), (version, light + dark + light), (version, b"short")):
            session.post(fresh.url + path, body, headers=RAW, timeout=10)
        for kind in ("image/png", "text/plain", "text/plain"):
            session.post(f"{fresh.url}/predict", b"", headers={"content-type": kind}, timeout=10)
        session.get(f"{fresh.url}/nowhere", timeout=10)
        found = scraped(fresh)
        (statistics,) = session.get(f"{fresh.url}/v2/models/stats", timeout=10).json()["model_stats"]

    def requests_(route: str, status: int) -> float:
        return found["classifier_requests_total", (("route", route), ("status", str(status)))]

    assert [requests_(INFER, 200), requests_(INFER, 400)] == [3, 1]
    assert [requests_("/predict", 400), requests_("/predict", 415), requests_("other", 404)] == [1, 2, 1]
    assert found["classifier_request_seconds_count", (("route", INFER),)] == 4
    assert found["classifier_predictions_total", (("class", "dark"),)] == 2
    assert found["classifier_predictions_total", (("class", "light"),)] == 3
    assert found["classifier_batch_images_sum", ()] == 5
    assert found["classifier_batch_images_bucket", (("le", "2"),)] == 2
    assert found["classifier_batch_images_bucket", (("le", "4"),)] == 3
    assert found["classifier_queue_seconds_count", ()] == 3
    assert [found[f"classifier_{name}", ()] for name in ("queue_images", "held_bytes", "swap_failed")] == [0, 0, 0]
    assert found["process_resident_memory_bytes", ()] > 2**20
    ((labels, value),) = [(dict(key[1]), value) for key, value in found.items() if key[0] == "classifier_model_info"]
    assert (labels["model_version"], len(labels["sha256"]), value) == ("1", 64, 1)

    assert (statistics["inference_count"], statistics["execution_count"]) == (5, 3)
    assert [statistics["inference_stats"][name]["count"] for name in ("success", "fail", "queue")] == [3, 0, 3]
    batches = {one["batch_size"]: one["compute_infer"]["count"] for one in statistics["batch_stats"]}
    assert batches == {1: 2, 3: 1}
    assert abs(time.time() * 1000 - statistics["last_inference"]) < 60_000
    assert 0 < statistics["inference_stats"]["compute_infer"]["ns"] < statistics["inference_stats"]["success"]["ns"]


def test_connections_are_counted_while_they_are_open(fresh: Running) -> None:
    def opened(expected: float) -> None:
        deadline = time.monotonic() + 10
        while (found := scraped(fresh)["classifier_connections", ()]) != expected:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    sessions = [requests.Session() for _ in range(3)]
    for session in sessions:
        session.get(f"{fresh.url}/v2", timeout=10)
    opened(4)  # and the one that asks
    for session in sessions:
        session.close()
    opened(1)


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "line\nbreak", "Größe", "", " a{b}=c "])
def test_a_class_of_any_name_is_read_back(name: str) -> None:
    metrics = Metrics()
    metrics.predictions[name] += 2
    metrics.model = {"model_version": name}
    found = samples(metrics.text().decode())
    assert found["classifier_predictions_total", (("class", name),)] == 2
    assert found["classifier_model_info", (("model_version", name),)] == 1


def test_a_histogram_counts_what_is_on_a_bound_below_it() -> None:
    histogram = Histogram((1, 2))
    for value in (0, 1, 1.5, 2, 2.5, inf):
        histogram.observe(value)
    assert histogram.buckets() == [("1", 2), ("2", 4), ("+Inf", 6)]
    assert sorted(SECONDS) == list(SECONDS)


def test_statistics_that_are_counted_are_those_that_are_told() -> None:
    statistics = Statistics(inferences=3, batches={2: Durations(1, 7), 1: Durations(1, 5)})
    statistics.success.add(0.5)
    statistics.infer.add(1e-3, 3)
    found: dict[str, Any] = statistics.contents("m", "7")
    assert (found["name"], found["version"], found["inference_count"], found["execution_count"]) == ("m", "7", 3, 2)
    assert found["inference_stats"]["success"] == {"count": 1, "ns": 500_000_000}
    assert found["inference_stats"]["compute_infer"] == {"count": 3, "ns": 1_000_000}
    assert [one["batch_size"] for one in found["batch_stats"]] == [1, 2]
