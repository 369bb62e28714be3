"""What a run came to, for Prefect's UI."""

from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.report import METRICS, PARITY, read, verdict
from tasks.dvc import StageRun
from tasks.prepared import Card
from tasks.stage import read_json


def publish(runs: Sequence[StageRun]) -> None:
    """Create Prefect's artifacts: a table of the metrics, and a report with the parity verdict, passed or failed."""
    metrics = read_json(METRICS)
    create_table_artifact(
        key="metrics",
        description=f"Accuracy {metrics['accuracy']:.2%}, loss {metrics['loss']:.4f}, {metrics['samples']:,} images",
        table=[
            {"class": name, **{score: round(value, 4) for score, value in scores.items()}}
            for name, scores in metrics["per_class"].items()
        ],
    )
    parity = read(PARITY)
    if parity is None or (parity["passed"] and runs[-1].stage != "export"):  # or it is the verdict of an earlier run
        parity = {"passed": False, "reason": "the stage ended before its verdict"}
    create_markdown_artifact(key="report", description="Whether the model may go live", markdown=markdown(runs, parity))


def markdown(runs: Sequence[StageRun], parity: dict[str, Any]) -> str:
    metrics = read_json(METRICS)
    dataset = Card.read().name
    stages = "\n".join(f"| {run.stage} | {run.outcome} | {run.seconds:.1f} |" for run in runs)
    if not any(run.stage == "export" for run in runs):
        stages += "\n| export | failed | |"
    return f"""# Parity {"passed" if parity["passed"] else "failed"}

The ONNX model against the .pth model on the whole test set: {verdict(parity)}.

**Accuracy {metrics["accuracy"]:.2%}**, loss {metrics["loss"]:.4f}: {metrics["samples"]:,} test images of {dataset}.

| stage | outcome | seconds |
|---|---|---:|
{stages}
"""
