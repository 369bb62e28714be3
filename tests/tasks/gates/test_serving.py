"""The serving gate: a model answers in a process that has nothing but what serves, or is refused."""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving import probe
from serving.model import Predictor
from serving.probe import Probe
from tasks.gates import serving
from tasks.gates.quality import Answers
from tasks.prepared import Card, Split
from tests.tasks.gates.test_quality import params

LIMITS = params(max_latency_ms=10_000.0, max_memory_mb=10_000)
FOUND = Probe(labels=[1, 2], together=[1, 2], latency_ms=5.0, slowest_ms=9.0, memory_mb=60.0, found=[])


@pytest.fixture
def model(exported: Path) -> bytes:
    return (exported / "model.onnx").read_bytes()


@pytest.fixture
def golden(exported: Path) -> dict[str, Any]:
    test = Split.read("test")
    answered = Answers(Predictor(exported / "model.onnx")(np.ascontiguousarray(test.images)), test.labels)
    return serving.golden(test.images, answered, Card.read().class_names)


def test_a_model_answers_without_anything_that_trains(model: bytes, golden: dict[str, Any]) -> None:
    verdict = serving.gate(model, golden, "auto", LIMITS)
    assert verdict.passed
    assert verdict.figures["golden requests"] == len(golden["requests"]) > 0
    assert isinstance(verdict.figures["MB"], float)
    assert 10 < verdict.figures["MB"] < 300  # torch alone takes more


def test_what_trains_cannot_be_imported_there(
    model: bytes, golden: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where it could be, the gate would say so: with site-packages, torch and its like are found."""
    monkeypatch.setattr(serving, "ISOLATED", ("-I",))
    verdict = serving.gate(model, golden, "auto", LIMITS)
    assert verdict.outcome == "failed"
    assert "torch can be imported where it is served, so that this proves nothing" in verdict.reasons


def test_another_answer_fails(model: bytes, golden: dict[str, Any]) -> None:
    golden["requests"][0]["label"] = (golden["requests"][0]["label"] + 1) % 10
    verdict = serving.gate(model, golden, "auto", LIMITS)
    assert [reason.partition(", sent")[0] for reason in verdict.reasons] == [
        f"1 of {len(golden['requests'])} golden requests"
    ] * 2


def test_a_file_that_is_no_model_fails_in_a_sentence(golden: dict[str, Any]) -> None:
    verdict = serving.gate(b"no model", golden, "auto", LIMITS)
    assert verdict.outcome == "failed"
    (reason,) = verdict.reasons
    assert reason.startswith("it does not run where it will be served: CPUExecutionProvider cannot run the model")


def test_a_process_that_does_not_end_fails(
    model: bytes, golden: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "LIMIT_S", 0.01)
    assert serving.gate(model, golden, "auto", LIMITS).reasons == ["no answer within 0.01 s"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"labels": [1, 0]}, "1 of 2 golden requests, sent alone, get another answer"),
        ({"together": [0, 0]}, "2 of 2 golden requests, sent together, get another answer"),
        ({"latency_ms": 10_001.0}, "an answer takes 1e+04 ms, retraining.max_latency_ms is 10000"),
        ({"memory_mb": 10_001.0}, "it takes 10001 MB, retraining.max_memory_mb is 10000"),
    ],
)
def test_what_is_judged(changes: dict[str, Any], reason: str) -> None:
    assert serving.judge(FOUND, [1, 2], LIMITS).passed
    found = Probe(**{**vars(FOUND), **changes})
    assert serving.judge(found, [1, 2], LIMITS).reasons == [reason]
    assert serving.judge(found, [1, 2], None).passed == ("latency_ms" in changes or "memory_mb" in changes)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str | None], None]:
    """Have a distribution in another version, or not at all."""

    def pretend(name: str, version: str | None) -> None:
        found = importlib.metadata.distribution

        class Other:
            def __init__(self, real: importlib.metadata.Distribution) -> None:
                self.files, self.locate_file, self.version = real.files, real.locate_file, version

        def distribution(wanted: str) -> object:
            if wanted == name and version is None:
                raise importlib.metadata.PackageNotFoundError(wanted)
            wanted = wanted.removesuffix("-gpu")
            return Other(found(wanted)) if wanted == name else found(wanted)

        monkeypatch.setattr(serving, "distribution", distribution)

    return pretend


@pytest.mark.parametrize(
    ("version", "says"), [("0.1", "pillow 0.1 is installed, not =="), (None, "pillow is not installed")]
)
def test_another_package_than_the_lock_says_proves_nothing(
    model: bytes,
    golden: dict[str, Any],
    installed: Callable[[str, str | None], None],
    monkeypatch: pytest.MonkeyPatch,
    version: str | None,
    says: str,
) -> None:
    monkeypatch.setattr(serving, "packages_distributions", dict)
    installed("pillow", version)
    verdict = serving.gate(model, golden, "auto", LIMITS)
    assert verdict.outcome == "not run"
    assert says in verdict.reasons[0]


def test_a_build_for_an_accelerator_is_the_same_package(
    model: bytes, golden: dict[str, Any], installed: Callable[[str, str | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("onnxruntime", None)
    monkeypatch.setattr(serving, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime-gpu"]})
    assert serving.gate(model, golden, "auto", LIMITS).passed


def test_golden_requests_are_right_clear_and_of_each_class_in_turn() -> None:
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    labels = np.array([0, 0, 1, 1, 0, 1])
    sure = np.array([0.9, 0.9, 0.503, 0.9, 0.1, 0.8], np.float32)  # of the label: the third is close, the fifth wrong
    probabilities = np.where(labels[:, None] == np.arange(2), sure[:, None], 1 - sure[:, None])
    chosen = serving.golden(images, Answers(probabilities, labels), ["boot", "shirt"])
    assert [(one["test_image"], one["label"], one["class"]) for one in chosen["requests"]] == [
        (0, 0, "boot"), (3, 1, "shirt"), (1, 0, "boot"), (5, 1, "shirt")
    ]  # fmt: skip
    assert probe.golden(chosen).tolist() == images[[0, 3, 1, 5]].tolist()


def test_of_a_model_that_knows_nothing_its_answer_is_expected() -> None:
    images, labels = np.zeros((2, 1, 1, 1), np.uint8), np.array([0, 0])
    probabilities = np.array([[0.2, 0.8], [0.4, 0.6]], np.float32)
    (one,) = serving.golden(images, Answers(probabilities, labels), ["boot", "shirt"])["requests"]
    assert (one["test_image"], one["label"]) == (0, 1)


def test_the_probe_alone_is_a_command(exported: Path, golden: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    (tmp_path / "model.onnx").write_bytes((exported / "model.onnx").read_bytes())
    found = probe.probe(tmp_path, "auto")
    assert found.labels == found.together == [one["label"] for one in golden["requests"]]
    assert 0 < found.latency_ms <= found.slowest_ms
    assert probe.peak_memory() >= found.memory_mb * 2**20 > 2**20
    assert "torch" in found.found  # here, in the tests, it is there
