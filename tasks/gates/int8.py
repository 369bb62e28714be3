"""The gate of the 8-bit model: does it know the test images nearly as well as the float32 model that it was made of?

Rounding moves every logit, so that this is judged by accuracy and by label, at every batch size that a server may send.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.proof import prove
from serving.session import CPU, SessionError, open_session
from tasks.gates import verdict
from tasks.gates.parity import Scores, run
from tasks.gates.verdict import Figure
from tasks.params.quantize import Quantize
from tasks.prepared import Labels, Split

REPORT = "reports/int8.json"


@dataclass(frozen=True)
class Report:
    """What int8.json holds besides the verdict."""

    reasons: list[str]  # why the model is withheld
    max_accuracy_drop: float
    max_changed_labels: float
    provider: str | None = None  # that ran every node; None if the model did not run
    nodes: int = 0
    samples: int = 0
    accuracy_float32: float | None = None
    accuracy_int8: float | None = None  # at the batch size where it is lowest
    changed_labels: float | None = None  # share of the images that get another label at some batch size
    max_abs_error: float | None = None  # of a probability; None where it is not finite
    between_batch_sizes: float | None = None  # largest difference of a probability; 0: the same bits in any company
    batch_sizes: list[int] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.reasons

    def contents(self) -> dict[str, Any]:
        """Return the contents of int8.json."""
        measured = asdict(self)
        return verdict.report("int8", measured.pop("reasons"), self.figures(), measured)

    def figures(self) -> dict[str, Figure]:
        return {
            "accuracy": self.accuracy_int8,
            "accuracy in float32": self.accuracy_float32,
            "other labels": self.changed_labels,
            "images": self.samples,
            "provider": self.provider,
            "largest probability error": self.max_abs_error,
            "largest difference between batch sizes": self.between_batch_sizes,
            "nodes": self.nodes,
        }


def gate(model: bytes, reference: Scores, test: Split, limits: Quantize, batch_sizes: tuple[int, ...]) -> Report:
    """Run `model` on the test images and compare it with `reference`, the float32 model's probabilities."""
    allowed = (limits.max_accuracy_drop, limits.max_changed_labels)
    try:
        session = open_session(model, CPU, record_nodes=True)
        nodes = prove(session, CPU)
    except SessionError as error:
        return Report([str(error)], *allowed)
    found = {size: run(session, test.images, size)[1] for size in batch_sizes}
    return judge(reference, found, test.labels, limits, nodes)


def judge(reference: Scores, found: dict[int, Scores], labels: Labels, limits: Quantize, nodes: int) -> Report:
    """Judge probabilities `float32 [N, classes]` by the batch size at which they were computed."""
    probabilities = np.stack(list(found.values()))  # [sizes, N, classes]
    predicted, expected = probabilities.argmax(2), reference.argmax(1)
    accuracy = float((expected == labels).mean())
    lowest = float((predicted == labels).mean(1).min())
    changed = float((predicted != expected).any(0).mean())
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        error, between = np.abs(probabilities - reference).max(), np.ptp(probabilities, 0).max()
    reasons = []
    if not np.isfinite(probabilities).all():
        reasons.append("its probabilities are not all finite")
    if (drop := round(accuracy - lowest, 9)) > limits.max_accuracy_drop:  # 1 - 0.99 is more than 0.01
        reasons.append(
            f"the accuracy falls by {drop:.4f}, from {accuracy:.4f} to {lowest:.4f}, quantize.max_accuracy_drop is "
            f"{limits.max_accuracy_drop:g}"
        )
    if changed > limits.max_changed_labels:
        reasons.append(
            f"{changed:.2%} of the test images get another label, quantize.max_changed_labels is "
            f"{limits.max_changed_labels:g}"
        )
    return Report(
        reasons,
        limits.max_accuracy_drop,
        limits.max_changed_labels,
        provider=CPU,
        nodes=nodes,
        samples=len(labels),
        accuracy_float32=accuracy,
        accuracy_int8=lowest,
        changed_labels=changed,
        max_abs_error=_json(error),
        between_batch_sizes=_json(between),
        batch_sizes=list(found),
    )


def _json(value: NDArray[np.float32]) -> float | None:
    return float(value) if np.isfinite(value) else None
