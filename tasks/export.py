"""Export the network to ONNX, and publish the file only if the parity gate passes.

Reads:  params.yaml (export, evaluate.batch_size, train.threads), data/prepared/, models/model.pth, models/model.json,
        reports/evaluation.json
Writes: models/model.onnx, models/labels.txt, reports/parity.json, and the figures by which runs are compared:
        reports/metrics.json
Run:    python -m tasks export
"""

import json
import math
from pathlib import Path

import onnx
import torch

from serving.labels import labels
from tasks.evaluation.record import EVALUATION, Evaluation
from tasks.exported.graph import check, provenance, to_onnx
from tasks.gates import parity
from tasks.gates.parity import REPORT
from tasks.harness import section
from tasks.harness.errors import StageError
from tasks.harness.records import write_json
from tasks.harness.stage import stage
from tasks.model import classifier
from tasks.model.affinity import apart
from tasks.model.batches import predict
from tasks.model.classifier import JSON, PTH
from tasks.model.determinism import set_up
from tasks.params.evaluate import Evaluate
from tasks.params.export import Export
from tasks.params.train import Train
from tasks.prepared import Split

ONNX = "models/model.onnx"
LABELS = "models/labels.txt"
METRICS = "reports/metrics.json"
# Fewer digits than the processors of two machines agree on, so that the same run elsewhere leaves git's file as it is;
# and no more than DVC shows: its tables would have a smaller number than this as 0.0.
DECIMALS = 4
SMALLEST_POWER = -5


def main() -> None:
    with stage(
        "export",
        reads=["data/prepared", PTH, JSON, EVALUATION],
        params=["export", "evaluate.batch_size", "train.threads"],
        writes=[REPORT, METRICS, LABELS, ONNX],
    ) as running:
        params = section.load(Export)
        device = set_up(section.load(Train).threads)
        batch_size = section.load(Evaluate).batch_size
        print(f"Using {device} device, {torch.get_num_threads()} CPU threads", flush=True)
        model, description = classifier.load()
        evaluation, test = Evaluation.read(), Split.read("test")
        # As DVC does before it runs a stage: after a failure none of them is there.
        for output in (ONNX, LABELS, METRICS, REPORT):
            Path(output).unlink(missing_ok=True)
        temperature = evaluation.temperature.value if params.calibrate else 1.0
        exported = to_onnx(model, description.image_shape, temperature)
        onnx.helper.set_model_props(exported, provenance(description, evaluation.accuracy, temperature))
        check(exported, description)
        with apart(device):
            reference = predict(model.to(device), test, batch_size, device).numpy()
        content = exported.SerializeToString(deterministic=True)
        report = parity.gate(
            content,
            reference,
            test,
            temperature=temperature,
            provider_requested=params.provider,
            tolerance=params.tolerance,
            batch_sizes=params.batch_sizes,
            threads=torch.get_num_threads(),
        )
        write_json(running.path(REPORT), report.contents())
        if not report.passed:
            running.publish(REPORT)
            raise StageError(
                f"parity failed: {'; '.join(report.reasons)}. {ONNX} was withheld, see {REPORT}; "
                f"if there was a good one before, it is back with: dvc checkout {ONNX} {LABELS}"
            )
        assert report.max_abs_error is not None  # it passed
        # Without the schema version that other JSON files have: DVC would make a column of it.
        text = json.dumps(metrics(evaluation.served(params.calibrate), report.max_abs_error), indent=2)
        running.path(METRICS).write_text(text + "\n", encoding="utf-8")
        running.path(LABELS).write_bytes(labels(description.class_names))
        running.path(ONNX).write_bytes(content)
    print(
        f"Parity passed on {report.provider}: {report.samples:,} images at batch sizes "
        f"{', '.join(map(str, params.batch_sizes))}, largest logit error {report.max_abs_error:.2g} "
        f"(tolerance {params.tolerance:g}), {report.ties} ties, temperature {temperature:g}"
    )
    print(f"Saved ONNX model to {ONNX}, its class names to {LABELS}")


def metrics(evaluation: Evaluation, largest_logit_error: float) -> dict[str, float]:
    """Compute the contents of metrics.json from what is served; of the logit error it holds the power of ten above."""
    recalls = [scores.recall for scores in evaluation.per_class.values() if scores.support]
    figures = {
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "calibration_error": evaluation.calibration_error,
        "lowest_recall": min(recalls),  # of a class
    }
    power = math.floor(math.log10(largest_logit_error)) + 1 if largest_logit_error else SMALLEST_POWER
    return {
        **{name: round(value, DECIMALS) for name, value in figures.items()},
        "logit_error_below": float(f"1e{max(power, SMALLEST_POWER)}"),
    }


if __name__ == "__main__":
    raise SystemExit("the stages have one door: python -m tasks export")
