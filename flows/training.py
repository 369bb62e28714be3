"""The training flow: from raw images to a verified ONNX model.

Reads:  params.yaml, dvc.yaml
Writes: whatever the stages write, and reports/run.json
Run:    python -m flows.training [-S [params.yaml:]key=value]...
"""

import argparse
import logging
import sys
from datetime import UTC, datetime

from prefect import flow, get_run_logger

from flows import overrides, report
from tasks import params
from tasks.params import ParamsError
from tasks.stage import StageError
from tasks.stages import StageFailed, StageRun, download, evaluate, export, train, transform


@flow(name="training")
def training(changes: list[str] | None = None) -> list[StageRun]:
    """Download, transform, train, evaluate and export, each only if DVC says that it has to run.

    Args:
        changes: to params.yaml, `key=value` each, made before the first stage.
    """
    started = datetime.now(UTC)
    for change in overrides.write(changes or []):
        get_run_logger().info("params.yaml: %s", change)
    p = params.load().flow
    limit = p.time_limit_s

    raw = download.with_options(retries=p.download_retries, retry_delay_seconds=p.retry_delay_s)(limit.download)
    prepared = transform(limit.transform, wait_for=[raw])
    trained = train(limit.train, wait_for=[prepared])
    evaluated = evaluate(limit.evaluate, wait_for=[trained])
    runs = [raw, prepared, trained, evaluated]
    try:
        runs.append(export(limit.export, wait_for=[evaluated]))
    finally:
        report.publish(runs)
    report.write_run(runs, started)
    return runs


def run(changes: list[str]) -> None:
    """Run the flow and print what came of it; exit with 1 and the reason if it failed."""
    # Where no server is configured Prefect starts one for the run, and says so in more words than matter here.
    logging.getLogger("prefect").addFilter(lambda record: record.levelno > logging.INFO)
    try:
        overrides.check(changes)
        runs = training(changes)
        print(f"\n{report.summary(runs)}")
    except StageFailed as error:
        sys.exit(f"\ntraining failed. {error.reason}")
    except (ParamsError, StageError) as error:
        sys.exit(f"\ntraining failed. {error}")
    except KeyboardInterrupt:
        print("\ntraining was interrupted; the next run goes on with the stage that was running", file=sys.stderr)
        sys.exit(130)


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
    run(parser.parse_args().changes)


if __name__ == "__main__":
    main()
