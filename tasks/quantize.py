"""Quantize the exported model to 8 bits, and publish the file only if its gate passes.

Reads:  params.yaml (quantize, export.batch_sizes), data/prepared/, models/model.onnx
Writes: models/model.int8.onnx, reports/int8.json
Run:    python -m tasks quantize; DVC and the flow do where params.yaml has quantize.to: [int8]
"""

from pathlib import Path

import onnx

from serving.model import Predictor
from serving.session import CPU, SessionError
from tasks.exported import int8
from tasks.gates.int8 import REPORT, gate
from tasks.gates.parity import Scores, run
from tasks.harness import section
from tasks.harness.errors import StageError
from tasks.harness.records import write_json
from tasks.harness.stage import stage
from tasks.params.export import Export
from tasks.params.quantize import Quantize
from tasks.prepared import Split, spread

FLOAT32, INT8 = "models/model.onnx", "models/model.int8.onnx"


def main() -> None:
    with stage(
        "quantize",
        reads=["data/prepared", FLOAT32],
        params=["quantize", "export.batch_sizes"],
        writes=[REPORT, INT8],
    ) as running:
        params, batch_sizes = section.load(Quantize), section.load(Export).batch_sizes
        if not params.to:
            raise StageError(f"quantize.to is empty in params.yaml; [int8] asks for {INT8}")
        test = Split.read("test")
        float32 = Path(FLOAT32).read_bytes()
        reference = _probabilities(FLOAT32, float32, test, max(batch_sizes))
        for output in (INT8, REPORT):  # as DVC does before it runs a stage
            Path(output).unlink(missing_ok=True)
        train = Split.read("train").images
        images = train[spread(len(train), params.calibration_images)]
        print(f"Calibrating on {len(images):,} training images", flush=True)
        quantized = int8.quantize(float32, images)
        probabilities = _probabilities(INT8, quantized.SerializeToString(), test, max(batch_sizes))
        accuracy = float((probabilities.argmax(1) == test.labels).mean())
        onnx.helper.set_model_props(quantized, int8.provenance(float32, len(images), accuracy))
        content = quantized.SerializeToString(deterministic=True)
        report = gate(content, reference, test, params, batch_sizes)
        write_json(running.path(REPORT), report.contents())
        if not report.passed:
            running.publish(REPORT)
            raise StageError(f"{INT8} was withheld, see {REPORT}: {'; '.join(report.reasons)}. {FLOAT32} stays")
        running.path(INT8).write_bytes(content)
    print(
        f"The int8 gate passed: accuracy {report.accuracy_int8:.4f}, {report.accuracy_float32:.4f} in float32, "
        f"{report.changed_labels:.2%} of {report.samples:,} labels changed"
    )
    print(f"Saved ONNX model to {INT8}, {len(content) / len(float32):.0%} of the bytes of {FLOAT32}")


def _probabilities(name: str, model: bytes, test: Split, batch_size: int) -> Scores:
    try:
        predictor = Predictor(Path(name), CPU, content=model)  # which checks the contract of serving, too
        return run(predictor.session, test.images, batch_size)[1]
    except SessionError as error:
        raise StageError(str(error)) from None


if __name__ == "__main__":
    raise SystemExit("the stages have one door: python -m tasks quantize")
