"""What a run came to, for Prefect's UI."""

from collections.abc import Sequence
from dataclasses import asdict

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.report import summary, verdicts
from flows.runtime import labels
from tasks.data import checks
from tasks.dvc import StageRun
from tasks.evaluation.record import Evaluation
from tasks.gates.verdict import Verdict, read_report
from tasks.prepared import Card


def publish(runs: Sequence[StageRun]) -> None:
    """Create Prefect's artifacts: a table of the metrics, and a report with the verdict of every gate."""
    found = verdicts.read(ended=[run.stage for run in runs])
    metrics = summary.served(Evaluation.read(), found)
    create_table_artifact(
        key=labels.key("metrics"),
        description=f"Accuracy {metrics.accuracy:.2%}, loss {metrics.loss:.4f}, {metrics.samples:,} images",
        table=[
            {"class": name, **{score: round(value, 4) for score, value in asdict(scores).items()}}
            for name, scores in metrics.per_class.items()
        ],
    )
    create_markdown_artifact(
        key=labels.key("report"), description="What the training came to", markdown=markdown(runs, found)
    )


def markdown(runs: Sequence[StageRun], found: Sequence[Verdict]) -> str:
    metrics, dataset = summary.served(Evaluation.read(), found), Card.read().name
    gates = "\n".join(f"- **{verdict.gate}** {verdicts.line(verdict)}" for verdict in found)
    stages = "\n".join(f"| {run.stage} | {run.outcome} | {run.seconds:.1f} |" for run in runs)
    if not any(run.stage == "export" for run in runs):
        stages += "\n| export | failed | |"
    remarks = summary.remarks(read_report(summary.DATA, checks.Report), metrics)
    return f"""# {verdicts.headline(found, remarks)}

{gates}
{"".join(f"- look at {remark}{chr(10)}" for remark in remarks)}

**Accuracy {metrics.accuracy:.2%}**, loss {metrics.loss:.4f}: {metrics.samples:,} test images of {dataset}.

| stage | outcome | seconds |
|---|---|---:|
{stages}
"""
