"""What the server counts: for Prometheus, and for Triton's statistics.

The event loop alone counts, so that nothing is locked. prometheus_client's own metrics take a lock for each number.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """Counts of values up to each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        total, found = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            found.append((bound, float(total := total + count)))
        return found


@dataclass
class Durations:
    """A count and the nanoseconds that it took, as Triton's statistics have them."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
        self.ns += int(seconds * 1e9)


@dataclass
class Statistics:
    """Of one version of the model."""

    inferences: int = 0  # images
    last_ms: int = 0  # when, since the epoch
    success: Durations = field(default_factory=Durations)
    fail: Durations = field(default_factory=Durations)
    queue: Durations = field(default_factory=Durations)
    infer: Durations = field(default_factory=Durations)
    batches: dict[int, Durations] = field(default_factory=dict)  # by the number of their images

    def contents(self, model: str, version: str) -> dict[str, Any]:
        """Return the entry of `model_stats`."""
        nothing = vars(Durations())
        return {
            "name": model,
            "version": version,
            "last_inference": self.last_ms,
            "inference_count": self.inferences,
            "execution_count": sum(one.count for one in self.batches.values()),
            "inference_stats": {
                "success": vars(self.success),
                "fail": vars(self.fail),
                "queue": vars(self.queue),
                "compute_input": nothing,
                "compute_infer": vars(self.infer),
                "compute_output": nothing,
            },
            "batch_stats": [
                {"batch_size": size, "compute_input": nothing, "compute_infer": vars(one), "compute_output": nothing}
                for size, one in sorted(self.batches.items())
            ],
        }


class Metrics(Collector):
    """Everything that /metrics says of this process."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by route and status
        self.seconds: dict[str, Histogram] = {}  # of the requests of a route that were answered
        self.queue_seconds = Histogram(SECONDS)
        self.batch_images = Histogram(IMAGES)
        self.predictions: Counter[str] = Counter()  # by class: the share of a class that drifts shows here first
        self.waiting = 0  # images
        self.connections = 0
        self.held = 0  # bytes of bodies
        self.buffered = 0  # bytes of answers that are not yet read, and of bodies whose turn has not come
        self.model: dict[str, str] = {}
        self.swaps: Counter[str] = Counter()
        self.refused: str | None = None  # the newer model that may not answer, and why
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    @property
    def swap_failed(self) -> bool:
        return self.refused is not None

    def answered(self, route: str, status: int, seconds: float) -> None:
        self.requests[route, status] += 1
        if route not in self.seconds:
            self.seconds[route] = Histogram(SECONDS)
        self.seconds[route].observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        yield _counts("requests", "Requests by route and status.", ("route", "status"), self.requests)
        seconds = HistogramMetricFamily("classifier_request_seconds", "From headers to answer.", labels=["route"])
        for route, histogram in self.seconds.items():
            seconds.add_metric([route], histogram.buckets(), histogram.sum)
        yield seconds
        yield _histogram("queue_seconds", "That a request waited for the model.", self.queue_seconds)
        yield _histogram("batch_images", "Images that were run together.", self.batch_images)
        predicted = {(name,): count for name, count in self.predictions.items()}
        yield _counts("predictions", "Images by the class that they were taken for.", ("class",), predicted)
        yield GaugeMetricFamily("classifier_queue_images", "Images that wait for the model.", self.waiting)
        yield GaugeMetricFamily("classifier_connections", "Connections that are open.", self.connections)
        held = "Of bodies that are received or wait, and answers that are not yet read."
        yield GaugeMetricFamily("classifier_held_bytes", held, self.held + self.buffered)
        about = GaugeMetricFamily("classifier_model_info", "The model that answers.", labels=list(self.model))
        about.add_metric(list(self.model.values()), 1)
        yield about
        swaps = {(result,): count for result, count in self.swaps.items()}
        yield _counts("swaps", "New models, by what came of them.", ("result",), swaps)
        failed = "1: a newer model was refused, and the one before it answers."
        yield GaugeMetricFamily("classifier_swap_failed", failed, float(self.swap_failed))


def _counts(
    name: str, what: str, labels: tuple[str, ...], counts: dict[Any, int] | Counter[Any]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"classifier_{name}", what, labels=labels)
    for key, count in counts.items():
        family.add_metric([str(part) for part in key], count)
    return family


def _histogram(name: str, what: str, histogram: Histogram) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"classifier_{name}", what, histogram.buckets(), histogram.sum)
