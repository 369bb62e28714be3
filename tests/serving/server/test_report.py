"""What is told of the model beside its answers: what it says of itself, how it was judged, and its samples."""

import io
import json
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from serving.model import Predictor
from serving.server import report
from tests.support import served
from tests.support.params import ROOT
from tests.support.registry import keep, point
from tests.support.server import running

FIGURES = {"accuracy": 0.9, "provider": "CPU", "ties": 0, "gain": None, "error": float("nan"), "more": [1]}
MODEL = "f" * 64


def verdict(**changes: Any) -> dict[str, Any]:
    passed = {"gate": "quality", "outcome": "passed", "reasons": ["/home/ana"], "figures": FIGURES}
    return {"model": MODEL, "time": "2026-11-26T22:29:53+00:00", "by": "ana@host", "blessings": [passed], **changes}


def told(folder: Path, **metadata: str) -> report.Report:
    champion = keep(folder, served.model(metadata=served.METADATA | metadata))
    requests = json.loads((folder / champion.sha256 / "golden.json").read_text())
    return report.of_champion(Predictor(folder / champion.path), folder, MODEL, requests)


def test_of_a_verdict_outcomes_and_figures_are_told_and_nothing_that_names_who_judged(tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text(json.dumps(verdict()))
    figures = {"accuracy": 0.9, "provider": "CPU", "ties": 0}
    gates = [{"gate": "quality", "outcome": "passed", "figures": figures}]
    assert told(tmp_path).verdict == {"time": "2026-11-26T22:29:53+00:00", "gates": gates}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        "\udcff",
        json.dumps(verdict(model="0" * 64)),
        json.dumps(verdict(blessings=1)),
        " " * 2**20,
    ],
    ids=["empty", "an array", "deep", "no UTF-8", "of another model", "another shape", "endless"],
)
def test_a_verdict_that_is_none_is_not_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "verdict.json").write_text(
        f"{text}{json.dumps(verdict())}" if text.isspace() else text, errors="surrogateescape"
    )
    assert told(tmp_path).verdict is None


def test_where_no_verdict_lies_none_is_told(tmp_path: Path) -> None:
    assert told(tmp_path).verdict is None


def test_a_blessing_of_another_shape_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text(json.dumps(verdict(blessings=[7, {"gate": "parity"}])))
    assert told(tmp_path).verdict == {"time": "2026-11-26T22:29:53+00:00", "gates": []}


@pytest.mark.parametrize(("text", "number"), [("0.5", 0.5), ("", None), ("nan", None), ("1e999", None), ("good", None)])
def test_a_number_of_the_metadata_that_is_none_is_not_told(tmp_path: Path, text: str, number: float | None) -> None:
    assert told(tmp_path, test_accuracy=text).test_accuracy == number


@pytest.mark.parametrize("channels", [1, 3])
def test_the_first_golden_requests_are_samples_pixel_by_pixel(tmp_path: Path, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, channels), np.uint8)
    requests = [{"label": k % 2, "pixels": b64encode(image.tobytes()).decode()} for k, image in enumerate(images)]
    model = served.save(served.model(inputs=[served.images("batch", 4, 4, channels)]), str(tmp_path / "model.onnx"))
    contents = {"image_shape": [4, 4, channels], "requests": requests}
    samples = report.of_champion(Predictor(model), tmp_path, MODEL, contents).samples
    assert [sample.label for sample in samples] == ["dark", "light"] * 5
    for sample, image in zip(samples, images, strict=False):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(sample.png))).reshape(4, 4, channels), image)


def test_the_report_and_the_samples_are_served(tmp_path: Path) -> None:
    root = tmp_path / "models/registry"
    champion = point(
        root, keep(root, served.model(metadata=served.METADATA | {"dataset": "\u00e9", "network": "cnn"})), 3
    )
    with running(tmp_path) as server:

        def get(path: str) -> Any:
            with urlopen(f"{server.url}/{path}", timeout=10) as answer:
                assert answer.headers["cache-control"] == "no-store"
                return answer.read()

        described = json.loads((ROOT / "serving/server/openapi.json").read_text())["components"]["schemas"]["Report"]
        assert list(json.loads(get("report"))) == list(described["properties"]) == described["required"]
        assert json.loads(get("report")) == {
            "model_name": "classifier",
            "model_version": "3",
            "sha256": champion.sha256,
            "refused": None,
            "image_shape": [4, 4, 1],
            "resize": "stretch",
            "classes": 2,
            "upload_bytes": 16 * 2**20,
            "dataset": "\u00e9",
            "network": "cnn",
            "test_accuracy": None,
            "temperature": None,
            "verdict": None,
            "samples": [{"path": "samples/0.png", "label": "dark"}, {"path": "samples/1.png", "label": "light"}],
        }
        assert np.asarray(Image.open(io.BytesIO(get("samples/1.png")))).tolist() == [[255] * 4] * 4
        for path in ("samples/2.png", "samples/-1.png", "samples/..%2F..%2Fchampion.json", f"samples/{'9' * 5000}.png"):
            with pytest.raises(HTTPError) as refused:
                get(path)
            assert refused.value.code == 404
            assert json.loads(refused.value.read())["error"].startswith("there is no ")
