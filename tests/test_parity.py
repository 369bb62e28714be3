"""The parity gate: what passes, what fails, and why."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from serving.session import ProviderError, candidates, open_session
from tasks import export, parity
from tasks.parity import Scores, Verdict, judge, measure
from tasks.prepared import Images
from tasks.stage import read_json
from tests.conftest import made_images, write_params

TOLERANCE = 1e-4
# One sample a row; the two best logits of the last are closer than twice the tolerance.
REFERENCE = np.array([[3, 1, 0], [0, 2, 1], [1, 0, 4], [2, 2 + 1.5e-4, 0]] * 500, np.float32)
LABELS = np.array([0, 1, 2, 0] * 500)


def verdict(*logits: Scores, reference: Scores = REFERENCE, probabilities: Scores | None = None) -> Verdict:
    runs = {
        2**n: measure(reference, each, softmax(each) if probabilities is None else probabilities)
        for n, each in enumerate(logits)
    }
    return judge(reference, runs, LABELS, TOLERANCE)


def softmax(logits: Scores) -> Scores:
    exponentials = np.exp(logits)
    probabilities: Scores = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def changed(row: int, column: int, value: float) -> Scores:
    logits = REFERENCE.copy()
    logits[row, column] = value
    return logits


def test_equal_logits_pass() -> None:
    found = verdict(REFERENCE, REFERENCE)
    assert found.passed
    assert (found.reason, found.samples, found.max_abs_error, found.ties) == ("", 2000, 0, 0)
    assert (found.label_agreement, found.accuracy_pth, found.accuracy_onnx) == (1, 0.75, 0.75)
    assert found.batch_sizes == [{"size": 1, "max_abs_error": 0}, {"size": 2, "max_abs_error": 0}]


def test_an_error_within_the_tolerance_passes_and_is_measured() -> None:
    found = verdict(REFERENCE, changed(5, 1, 2 + 9e-5))
    assert found.passed
    assert found.max_abs_error == pytest.approx(9e-5, rel=1e-2)
    assert [entry["max_abs_error"] > 0 for entry in found.batch_sizes] == [False, True]


def test_one_logit_beyond_the_tolerance_fails_and_is_named() -> None:
    found = verdict(REFERENCE, changed(5, 1, 2.01))
    assert not found.passed
    assert re.match(
        "the logits of test image 5 at batch size 2 differ by 0.01, export.tolerance is 0.0001", found.reason
    )
    worst = found.worst_samples[0]
    assert (worst["index"], worst["batch_size"], worst["actual"], worst["pth"], worst["onnx"]) == (5, 2, 1, 1, 1)


def test_another_label_fails_even_where_the_logits_are_close_enough() -> None:
    reference = REFERENCE.copy()
    reference[0] = (1, 1 - 3e-4, 0)  # no tie: farther apart than twice the tolerance
    logits = reference.copy()
    logits[0] = (1 - 2e-4, 1 - 1e-4, 0)
    found = verdict(logits, reference=reference)
    assert "1 labels differ, the first of test image 0" in found.reason


def test_another_label_in_a_tie_is_counted_and_passes() -> None:
    logits = REFERENCE.copy()
    logits[3] = (2 + 9e-5, 2 + 6e-5, 0)
    found = verdict(REFERENCE, logits)
    assert found.passed
    assert (found.ties, found.label_agreement) == (1, 1 - 1 / 2000)
    assert (found.accuracy_pth, found.accuracy_onnx) == (0.75, 0.75 + 1 / 2000)


def test_more_ties_than_one_in_a_thousand_fail() -> None:
    logits = REFERENCE.copy()
    logits[[3, 7]] = (2 + 9e-5, 2 + 6e-5, 0)
    assert verdict(logits).passed
    logits[11] = (2 + 9e-5, 2 + 6e-5, 0)
    assert verdict(logits).reason == (
        "3 of 2000 samples are ties, more than 0.1%; "
        "the largest logit error, 8.99e-05 of test image 3, is within export.tolerance, 0.0001"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_fails(value: float) -> None:
    for found in (
        verdict(changed(9, 2, value), probabilities=softmax(REFERENCE)),
        verdict(REFERENCE, reference=changed(9, 2, value)),
    ):
        assert not found.passed
        assert found.max_abs_error is None
        assert found.reason.startswith("the logits of test image 9 at batch size 1 differ by inf")


def test_probabilities_are_compared_too() -> None:
    probabilities = softmax(REFERENCE)
    probabilities[4, 0] += 1e-3
    found = verdict(REFERENCE, probabilities=probabilities)
    assert "a probability differs by 0.001" in found.reason


def test_the_stage_publishes_a_model_that_passed(evaluated: Path) -> None:
    export.main()
    found = read_json(Path("reports/parity.json"))
    assert found["passed"]
    assert (found["provider_requested"], found["provider"], found["samples"]) == (
        "auto",
        open_session("models/model.onnx").get_providers()[0],
        8,
    )
    assert found["nodes"] > 0
    assert [entry["size"] for entry in found["batch_sizes"]] == [1, 3]
    assert found["accuracy_pth"] == found["accuracy_onnx"] == read_json(Path("reports/metrics.json"))["accuracy"]


def test_a_model_with_a_nudged_weight_is_withheld(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export.main()
    right = export.to_onnx

    def nudged(*arguments: object) -> onnx.ModelProto:
        model = right(*arguments)  # type: ignore[arg-type]
        weight = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("4.bias"))
        values = onnx.numpy_helper.to_array(weight).copy()
        values[0] += 1e-3
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return model

    monkeypatch.setattr(export, "to_onnx", nudged)
    with pytest.raises(SystemExit) as stopped:
        export.main()
    message = str(stopped.value.code)
    assert re.match(r"export: parity failed: the logits of test image \d at batch size \d differ by 0.001", message)
    assert "export.tolerance is 0.0001" in message
    assert "dvc checkout models/model.onnx" in message
    assert sorted(path.name for path in Path("models").iterdir()) == ["model.json", "model.pth"]
    found = read_json(Path("reports/parity.json"))
    assert not found["passed"]
    assert found["max_abs_error"] == pytest.approx(1e-3, rel=1e-2)


def test_an_accelerator_that_is_missing_is_an_error_of_its_own(evaluated: Path) -> None:
    write_params(export={"provider": "CUDAExecutionProvider"})
    with pytest.raises(SystemExit) as stopped:
        export.main()
    assert "export.provider = CUDAExecutionProvider: CUDAExecutionProvider is not in this ONNX Runtime" in str(
        stopped.value.code
    )
    assert not Path("models/model.onnx").exists()
    found = read_json(Path("reports/parity.json"))
    assert (found["passed"], found["provider"], found["provider_requested"]) == (False, None, "CUDAExecutionProvider")


def test_an_accelerator_that_does_not_run_the_nodes_is_an_error_of_its_own(
    evaluated: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # The CPU build of ONNX Runtime has this provider, but it takes none of our nodes.
    write_params(export={"provider": "AzureExecutionProvider"})
    with pytest.raises(SystemExit) as stopped:
        export.main()
    assert "export.provider = AzureExecutionProvider: AzureExecutionProvider cannot run the model" in str(
        stopped.value.code
    )
    assert not Path("models/model.onnx").exists()


@pytest.mark.parametrize(
    ("placed", "shares"),
    [
        ({"CPUExecutionProvider": 3}, "CPUExecutionProvider 3"),
        ({"CUDAExecutionProvider": 2, "CPUExecutionProvider": 1}, "CUDAExecutionProvider 2, CPUExecutionProvider 1"),
        ({}, "no node at all"),
    ],
)
def test_a_session_that_runs_a_node_elsewhere_is_refused(placed: dict[str, int], shares: str) -> None:
    graphs = [SimpleNamespace(ep_name=name, get_nodes=lambda n=count: [0] * n) for name, count in placed.items()]
    session = SimpleNamespace(get_provider_graph_assignment_info=lambda: graphs)
    with pytest.raises(ProviderError, match=f"nodes by provider: {shares}"):
        parity.prove(session, "CUDAExecutionProvider")


def test_auto_tries_the_accelerators_that_are_there_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: available)
    assert candidates("auto") == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert candidates("TensorrtExecutionProvider") == ["TensorrtExecutionProvider"]


def test_auto_goes_on_where_the_accelerator_it_was_built_for_is_missing(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    export.main()
    # The CPU build has this one, but it takes none of our nodes.
    monkeypatch.setattr("serving.session.ACCELERATORS", ("AzureExecutionProvider",))
    assert open_session("models/model.onnx").get_providers()[0] == "CPUExecutionProvider"
    assert "AzureExecutionProvider cannot run the model" in capfd.readouterr().err


def test_every_batch_is_full(prepared: Path) -> None:
    sent = []

    def answer(_: object, inputs: dict[str, Images]) -> list[Scores]:
        sent.append(len(inputs["images"]))
        return [inputs["images"].sum((1, 2, 3), np.float32)[:, np.newaxis]] * 2

    images = made_images(5)[0]
    for size in (1, 3, 5, 12):
        logits, _ = parity.run(SimpleNamespace(run=answer), images, size)
        assert logits[:, 0].tolist() == images.sum((1, 2, 3), np.float32).tolist()
    assert sent == [1] * 5 + [3, 3] + [5] + [12]


def test_a_session_that_fell_back_to_the_cpu_is_refused(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export.main()
    monkeypatch.setattr("onnxruntime.InferenceSession.get_providers", lambda _: ["CPUExecutionProvider"])
    monkeypatch.setattr("onnxruntime.SessionOptions.add_session_config_entry", lambda *_: None)
    with pytest.raises(ProviderError, match="AzureExecutionProvider was asked for, but ONNX Runtime runs"):
        open_session("models/model.onnx", "AzureExecutionProvider")
