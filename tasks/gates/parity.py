"""The parity gate: does the ONNX model, on the runtime that will serve it, predict what the .pth model predicts?

It compares every test image at every batch size that a server may send, by number (logits, and probabilities at the
temperature that the model should have), by label and by accuracy, and proves which execution provider ran the nodes.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serving.proof import prove
from serving.session import SessionError, open_session
from tasks.gates import verdict
from tasks.gates.verdict import Figure
from tasks.prepared import Images, Labels, Split

REPORT = "reports/parity.json"
MAX_TIES = 0.001  # of the samples
WORST_SAMPLES = 5

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Report:
    """What parity.json holds besides the verdict."""

    reasons: list[str]  # why the model is withheld
    tolerance: float
    provider_requested: str = ""
    provider: str | None = None  # that ran every node; None if the model did not run
    nodes: int = 0  # of the optimised graph, all run by `provider`
    samples: int = 0
    max_abs_error: float | None = None  # of a logit, over all samples and batch sizes; None where it is not finite
    max_abs_probability_error: float | None = None
    label_agreement: float | None = None
    ties: int = 0  # samples whose labels differ, but whose two best logits differ by less than twice the tolerance
    accuracy_pth: float | None = None
    accuracy_onnx: float | None = None  # at the batch size where it is farthest from accuracy_pth
    batch_sizes: list[dict[str, Any]] = field(default_factory=list)  # with the largest absolute logit error of each
    worst_samples: list[dict[str, Any]] = field(default_factory=list)
    temperature: float = 1.0  # of the probabilities; 1: the model is not calibrated

    @property
    def passed(self) -> bool:
        return not self.reasons

    def contents(self) -> dict[str, Any]:
        """Return the contents of parity.json."""
        measured = asdict(self)
        return verdict.report("parity", measured.pop("reasons"), self.figures(), measured)

    def figures(self) -> dict[str, Figure]:
        return {
            "provider": self.provider,
            "images": self.samples,
            "largest logit error": self.max_abs_error,
            "tolerance": self.tolerance,
            "ties": self.ties,
            "same label": self.label_agreement,
            "accuracy of the .pth model": self.accuracy_pth,
            "accuracy of the .onnx model": self.accuracy_onnx,
            "largest probability error": self.max_abs_probability_error,
            "temperature": self.temperature,
            "nodes": self.nodes,
            **{
                f"largest logit error at batch size {batch['size']}": batch["max_abs_error"]
                for batch in self.batch_sizes
            },
        }


@dataclass(frozen=True)
class Run:
    """How the ONNX model's answers at one batch size differ from the reference."""

    errors: NDArray[np.float64]  # [N], the largest absolute error among each sample's logits
    probability_error: float  # the largest of all
    labels: Labels  # [N], predicted


def gate(
    model: bytes,
    reference: Scores,
    test: Split,
    *,
    temperature: float,
    provider_requested: str,
    tolerance: float,
    batch_sizes: tuple[int, ...],
    threads: int,
) -> Report:
    """Run `model` on `test` and compare it with `reference`, the .pth model's logits `float32 [N, classes]`.

    Args:
        temperature: by which the model should divide the logits of which it makes probabilities.
    """
    try:
        session = open_session(model, provider_requested, threads, record_nodes=True)
        provider = session.get_providers()[0]
        nodes = prove(session, provider)
    except SessionError as error:
        refused = [f"export.provider = {provider_requested}: {error}"]
        return Report(refused, tolerance, provider_requested, temperature=temperature)
    runs = {size: measure(reference, temperature, *run(session, test.images, size)) for size in batch_sizes}
    report = judge(reference, runs, test.labels, tolerance)
    return replace(
        report, provider_requested=provider_requested, provider=provider, nodes=nodes, temperature=temperature
    )


def run(session: onnxruntime.InferenceSession, images: Images, batch_size: int) -> tuple[Scores, Scores]:
    """Return logits and probabilities, `float32 [N, classes]` each, of `images` sent `batch_size` at a time.

    Every batch is full: the last one begins again with the first images, whose answers are dropped.
    """
    size = len(images)
    batches = (np.arange(start, start + batch_size) % size for start in range(0, size, batch_size))
    answers = [session.run(["logits", "probabilities"], {"images": images[indices]}) for indices in batches]
    logits, probabilities = (np.concatenate(parts)[:size] for parts in zip(*answers, strict=True))
    return logits, probabilities


def measure(reference: Scores, temperature: float, logits: Scores, probabilities: Scores) -> Run:
    """Compare logits, and probabilities at a temperature, with the reference logits, `float32 [N, classes]` all."""
    probability_errors = _errors(probabilities, _softmax(reference, temperature))
    return Run(_errors(logits, reference), float(probability_errors.max()), logits.argmax(1))


def judge(reference: Scores, runs: dict[int, Run], labels: Labels, tolerance: float) -> Report:
    """Judge the runs, by batch size, of a model whose .pth has the logits `reference`, `float32 [N, classes]`.

    Where all labels agree outside the ties, so do the accuracies.
    """
    errors = np.stack([run.errors for run in runs.values()])  # [sizes, N]
    predicted = np.stack([run.labels for run in runs.values()])  # [sizes, N]
    probability_error = max(run.probability_error for run in runs.values())
    expected = reference.argmax(1)
    second, first = np.sort(reference.astype(np.float64), axis=1).T[-2:]
    margin = first - second
    differs = (predicted != expected).any(0)
    ties = differs & (margin < 2 * tolerance)  # a margin that is not a number is no tie
    accuracy = float((expected == labels).mean())
    accuracies = (predicted == labels).mean(1).tolist()
    worst = [
        _sample(index, list(runs), errors, margin, labels, expected, predicted)
        for index in np.argsort(-errors.max(0), kind="stable")[:WORST_SAMPLES].tolist()
    ]
    return Report(
        reasons=_reasons(float(errors.max()), probability_error, differs, ties, worst[0], tolerance),
        tolerance=tolerance,
        samples=len(labels),
        max_abs_error=_json(errors.max()),
        max_abs_probability_error=_json(probability_error),
        label_agreement=float(1 - differs.mean()),
        ties=int(ties.sum()),
        accuracy_pth=accuracy,
        accuracy_onnx=max(accuracies, key=lambda other: abs(other - accuracy)),
        batch_sizes=[
            {"size": size, "max_abs_error": _json(largest)} for size, largest in zip(runs, errors.max(1), strict=True)
        ],
        worst_samples=worst,
    )


def _sample(
    index: int,
    batch_sizes: list[int],
    errors: NDArray[np.float64],
    margin: NDArray[np.float64],
    labels: Labels,
    expected: Labels,
    predicted: Labels,
) -> dict[str, Any]:
    """Describe one image at the batch size where its logits differ most; see `judge` for the shapes."""
    row = int(errors[:, index].argmax())
    return {
        "index": index,
        "batch_size": batch_sizes[row],
        "abs_error": _json(errors[row, index]),
        "margin": _json(margin[index]),
        "actual": int(labels[index]),
        "pth": int(expected[index]),
        "onnx": int(predicted[row, index]),
    }


def _reasons(
    error: float,
    probability_error: float,
    differs: NDArray[np.bool_],
    ties: NDArray[np.bool_],
    worst: dict[str, Any],
    tolerance: float,
) -> list[str]:
    """Say why the model is withheld: nothing, where it passes."""
    reasons = []
    if not error <= tolerance:
        where = f"test image {worst['index']} at batch size {worst['batch_size']}"
        reasons.append(f"the logits of {where} differ by {error:.3g}, export.tolerance is {tolerance:g}")
    if not probability_error <= tolerance:
        reasons.append(f"a probability differs by {probability_error:.3g}, export.tolerance is {tolerance:g}")
    if mislabelled := np.flatnonzero(differs & ~ties).tolist():
        reasons.append(f"{len(mislabelled)} labels differ, the first of test image {mislabelled[0]}")
    if ties.sum() > MAX_TIES * len(ties):
        reasons.append(f"{ties.sum()} of {len(ties)} samples are ties, more than {MAX_TIES:.1%}")
    if reasons and error <= tolerance:
        reasons.append(
            f"the largest logit error, {error:.3g} of test image {worst['index']}, "
            f"is within export.tolerance, {tolerance:g}"
        )
    return reasons


@np.errstate(invalid="ignore")  # infinity minus infinity
def _errors(values: Scores, reference: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the largest absolute error of each row, `float64 [N]`; infinity where a value is not finite."""
    difference = np.abs(values.astype(np.float64) - reference).max(axis=1)
    return np.where(np.isfinite(difference), difference, np.inf)


@np.errstate(invalid="ignore")
def _softmax(logits: Scores, temperature: float) -> NDArray[np.float64]:
    exponentials = np.exp((logits.astype(np.float64) - logits.max(axis=1, keepdims=True)) / temperature)
    softmax: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return softmax


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
