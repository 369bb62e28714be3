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

from serving.session import ProviderError, SessionError, choose_provider, open_session
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
        provider = choose_provider(provider_requested)
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        session = open_session(model, provider, threads, options)
        nodes = prove(session, provider)
    except SessionError as error:
        return Verdict(False, f"export.provider = {provider_requested}: {error}", tolerance, provider_requested)
    outputs = {size: run(session, test.images, size) for size in batch_sizes}
    verdict = compare(reference, outputs, test.labels, tolerance)
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
    """Return logits and probabilities, `float32 [N, classes]` each, of `images` sent `batch_size` at a time."""
    starts = range(0, len(images), batch_size)
    answers = [
        session.run(["logits", "probabilities"], {"images": images[start : start + batch_size]}) for start in starts
    ]
    logits, probabilities = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    return logits, probabilities


def compare(reference: Scores, outputs: dict[int, tuple[Scores, Scores]], labels: Labels, tolerance: float) -> Verdict:
    """Compare each batch size's logits and probabilities with the reference logits, `float32 [N, classes]` all.

    Where all labels agree outside the ties, so do the accuracies. A value that is not finite is an infinite error.
    """
    expected = reference.argmax(1)
    best_two = np.sort(reference.astype(np.float64), axis=1)[:, -2:]
    margin = best_two[:, 1] - best_two[:, 0]
    accuracy = float((expected == labels).mean())

    errors = {size: _errors(logits, reference) for size, (logits, _) in outputs.items()}  # float64 [N] each
    probability_error = max(_errors(p, _softmax(reference)).max() for _, p in outputs.values())
    guesses = {size: logits.argmax(1) for size, (logits, _) in outputs.items()}
    accuracies = [float((guess == labels).mean()) for guess in guesses.values()]
    differs = np.any([guess != expected for guess in guesses.values()], axis=0)
    # A NaN margin is no tie.
    ties = differs & (margin < 2 * tolerance)

    error = np.max(list(errors.values()), axis=0)
    worst = np.argsort(-error, kind="stable")[:WORST_SAMPLES]
    sizes = list(errors)
    worst_samples = []
    for index in worst.tolist():
        size = max(sizes, key=lambda size: errors[size][index])
        worst_samples.append(
            {
                "index": index,
                "batch_size": size,
                "abs_error": _json(error[index]),
                "margin": _json(margin[index]),
                "actual": int(labels[index]),
                "pth": int(expected[index]),
                "onnx": int(guesses[size][index]),
            }
        )

    first = worst_samples[0]
    where = f"test image {first['index']} at batch size {first['batch_size']}"
    reasons = []
    if not error.max() <= tolerance:
        reasons.append(f"the logits of {where} differ by {error.max():.3g}, export.tolerance is {tolerance:g}")
    if not probability_error <= tolerance:
        reasons.append(f"a probability differs by {probability_error:.3g}, export.tolerance is {tolerance:g}")
    if mislabelled := np.flatnonzero(differs & ~ties).tolist():
        reasons.append(f"{len(mislabelled)} labels differ, the first of test image {mislabelled[0]}")
    if ties.sum() > MAX_TIES * len(labels):
        reasons.append(f"{ties.sum()} of {len(labels)} samples are ties, more than {MAX_TIES:.1%}")
    return Verdict(
        passed=not reasons,
        reason="; ".join(reasons),
        tolerance=tolerance,
        samples=len(labels),
        max_abs_error=_json(error.max()),
        max_abs_probability_error=_json(probability_error),
        label_agreement=float(1 - differs.mean()),
        ties=int(ties.sum()),
        accuracy_pth=accuracy,
        accuracy_onnx=max(accuracies, key=lambda other: abs(other - accuracy)),
        batch_sizes=[{"size": size, "max_abs_error": _json(values.max())} for size, values in errors.items()],
        worst_samples=worst_samples,
    )


@np.errstate(invalid="ignore")  # infinity minus infinity
def _errors(values: Scores, reference: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    difference = np.abs(values.astype(np.float64) - reference).max(axis=1)
    return np.where(np.isfinite(difference), difference, np.inf)


@np.errstate(invalid="ignore")
def _softmax(logits: Scores) -> NDArray[np.float64]:
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    softmax: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return softmax


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
