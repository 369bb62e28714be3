"""The training flow: from raw images to a verified ONNX model.

Reads:  params.yaml, dvc.yaml
Writes: whatever the stages write, and reports/run.json
Run:    python -m flows.training [-S [params.yaml:]key=value]... [--wait SECONDS]
"""

import argparse
from datetime import UTC, datetime

from prefect import flow, get_run_logger

from flows import artifacts, dvc_files, last_good, overrides, report
from flows.command import run
from tasks import params
from tasks.dvc import StageFailed, StageRun
from tasks.stages import download, evaluate, export, train, transform


@flow(name="training")
def training(changes: list[str] | None = None) -> list[StageRun]:
    """Download, transform, train, evaluate and export, each only if DVC says that it has to run.

    Args:
        changes: to params.yaml, `key=value` each, made before the first stage.
    """
    started = datetime.now(UTC)
    logger = get_run_logger()
    for path in dvc_files.remove_damaged():
        logger.warning("%s was cut off when DVC was killed; DVC writes it anew, and restores what it has run", path)
    for change in overrides.write(changes or []):
        logger.info("params.yaml: %s", change)
    p = params.load().flow
    limit = p.time_limit_s

    raw = download.with_options(retries=p.download_retries, retry_delay_seconds=p.retry_delay_s)(limit.download)
    prepared = transform(limit.transform, wait_for=[raw])
    trained = train(limit.train, wait_for=[prepared])
    evaluated = evaluate(limit.evaluate, wait_for=[trained])
    runs = [raw, prepared, trained, evaluated]
    try:
        runs.append(export(limit.export, wait_for=[evaluated]))
    except StageFailed:
        artifacts.publish(runs)
        raise
    artifacts.publish(runs)
    report.write_run(runs, started)
    last_good.keep()
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.training", description=__doc__.splitlines()[0])
    parser.add_argument(
        "-S",
        "--set-param",
        dest="changes",
        action="append",
        default=[],
        metavar="[params.yaml:]key=value",
        help="change params.yaml first, as dvc exp run -S does; may be given several times",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=0,
        metavar="SECONDS",
        help="how long to wait for another run in this project; without it, leave at once",
    )
    arguments = parser.parse_args()
    run(training, arguments.changes, arguments.wait)


if __name__ == "__main__":
    main()
