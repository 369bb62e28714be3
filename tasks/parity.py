"""The parity gate: does the ONNX model, on the runtime that will serve it, predict what the .pth model predicts?

It compares every test image at every batch size that a server may send, by number (logits and probabilities), by label
and by accuracy, and proves which execution provider ran the nodes.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serving.session import ProviderError, SessionError, open_session
from tasks.prepared import Images, Labels, Split

MAX_TIES = 0.001  # of the samples
WORST_SAMPLES = 5

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Verdict:
    """The contents of parity.json."""

    passed: bool
    reason: str  # why not; empty if passed
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
    provider_requested: str,
    tolerance: float,
    batch_sizes: tuple[int, ...],
    threads: int,
) -> Verdict:
    """Run `model` on `test` and compare it with `reference`, the .pth model's logits `float32 [N, classes]`."""
    try:
        session = open_session(model, provider_requested, threads, record_nodes=True)
        provider = session.get_providers()[0]
        nodes = prove(session, provider)
    except SessionError as error:
        return Verdict(False, f"export.provider = {provider_requested}: {error}", tolerance, provider_requested)
    runs = {size: measure(reference, *run(session, test.images, size)) for size in batch_sizes}
    verdict = judge(reference, runs, test.labels, tolerance)
    return replace(verdict, provider_requested=provider_requested, provider=provider, nodes=nodes)


def prove(session: onnxruntime.InferenceSession, provider: str) -> int:
    """Return the number of nodes in the session's optimised graph, after checking that `provider` runs all of them.

    Raises:
        ProviderError: another provider runs some, or nothing is known about them.
    """
    placed = Counter[str]()
    for subgraph in session.get_provider_graph_assignment_info():
        placed[subgraph.ep_name] += len(subgraph.get_nodes())
    if set(placed) != {provider}:
        shares = ", ".join(f"{name} {count}" for name, count in placed.items()) or "no node at all"
        raise ProviderError(f"{provider} did not run the whole model; nodes by provider: {shares}")
    return placed[provider]


def run(session: onnxruntime.InferenceSession, images: Images, batch_size: int) -> tuple[Scores, Scores]:
    """Return logits and probabilities, `float32 [N, classes]` each, of `images` sent `batch_size` at a time.

    Every batch is full: the last one begins again with the first images, whose answers are dropped.
    """
    size = len(images)
    batches = (np.arange(start, start + batch_size) % size for start in range(0, size, batch_size))
    answers = [session.run(["logits", "probabilities"], {"images": images[indices]}) for indices in batches]
    logits, probabilities = (np.concatenate(parts)[:size] for parts in zip(*answers, strict=True))
    return logits, probabilities


def measure(reference: Scores, logits: Scores, probabilities: Scores) -> Run:
    """Compare logits and probabilities with the reference logits, `float32 [N, classes]` all."""
    probability_errors = _errors(probabilities, _softmax(reference))
    return Run(_errors(logits, reference), float(probability_errors.max()), logits.argmax(1))


def judge(reference: Scores, runs: dict[int, Run], labels: Labels, tolerance: float) -> Verdict:
    """Judge the runs, by batch size, of a model whose .pth has the logits `reference`, `float32 [N, classes]`.

    Where all labels agree outside the ties, so do the accuracies.
    """
    sizes = list(runs)
    errors = np.stack([run.errors for run in runs.values()])  # [sizes, N]
    guesses = np.stack([run.labels for run in runs.values()])
    probability_error = max(run.probability_error for run in runs.values())
    expected = reference.argmax(1)
    second, first = np.sort(reference.astype(np.float64), axis=1).T[-2:]
    margin = first - second
    differs = (guesses != expected).any(0)
    ties = differs & (margin < 2 * tolerance)  # a margin that is not a number is no tie
    accuracy = float((expected == labels).mean())
    accuracies = (guesses == labels).mean(1).tolist()
    worst = [
        {
            "index": index,
            "batch_size": sizes[size],
            "abs_error": _json(errors[size, index]),
            "margin": _json(margin[index]),
            "actual": int(labels[index]),
            "pth": int(expected[index]),
            "onnx": int(guesses[size, index]),
        }
        for index in np.argsort(-errors.max(0), kind="stable")[:WORST_SAMPLES].tolist()
        for size in [errors[:, index].argmax()]
    ]

    reasons = []
    if not errors.max() <= tolerance:
        where = f"test image {worst[0]['index']} at batch size {worst[0]['batch_size']}"
        reasons.append(f"the logits of {where} differ by {errors.max():.3g}, export.tolerance is {tolerance:g}")
    if not probability_error <= tolerance:
        reasons.append(f"a probability differs by {probability_error:.3g}, export.tolerance is {tolerance:g}")
    if mislabelled := np.flatnonzero(differs & ~ties).tolist():
        reasons.append(f"{len(mislabelled)} labels differ, the first of test image {mislabelled[0]}")
    if ties.sum() > MAX_TIES * len(labels):
        reasons.append(f"{ties.sum()} of {len(labels)} samples are ties, more than {MAX_TIES:.1%}")
    if reasons and errors.max() <= tolerance:
        reasons.append(
            f"the largest logit error, {errors.max():.3g} of test image {worst[0]['index']}, "
            f"is within export.tolerance, {tolerance:g}"
        )
    return Verdict(
        passed=not reasons,
        reason="; ".join(reasons),
        tolerance=tolerance,
        samples=len(labels),
        max_abs_error=_json(errors.max()),
        max_abs_probability_error=_json(probability_error),
        label_agreement=float(1 - differs.mean()),
        ties=int(ties.sum()),
        accuracy_pth=accuracy,
        accuracy_onnx=max(accuracies, key=lambda other: abs(other - accuracy)),
        batch_sizes=[
            {"size": size, "max_abs_error": _json(largest)} for size, largest in zip(sizes, errors.max(1), strict=True)
        ],
        worst_samples=worst,
    )


@np.errstate(invalid="ignore")  # infinity minus infinity
def _errors(values: Scores, reference: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the largest absolute error of each row, `float64 [N]`; infinity where a value is not finite."""
    difference = np.abs(values.astype(np.float64) - reference).max(axis=1)
    return np.where(np.isfinite(difference), difference, np.inf)


@np.errstate(invalid="ignore")
def _softmax(logits: Scores) -> NDArray[np.float64]:
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    softmax: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return softmax


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
