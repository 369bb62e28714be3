"""The training flow: from raw images to a verified ONNX model.

Reads:  params.yaml, dvc.yaml
Writes: whatever the stages write, and reports/run.json
Run:    python -m flows.training [-S [params.yaml:]key=value]...
"""

import argparse
import logging
import signal
import sys
from datetime import UTC, datetime

from prefect import flow, get_run_logger
from prefect.settings import PREFECT_API_URL

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
    # That it starts and stops a temporary server.
    logging.getLogger("prefect").addFilter(lambda record: record.levelno > logging.INFO)
    try:
        overrides.check(changes)
        start_temporary_server()
        runs = training(changes)
        print(f"\n{report.summary(runs)}")
    except StageFailed as error:
        sys.exit(f"\ntraining failed. {error.reason}")
    except (ParamsError, StageError) as error:
        sys.exit(f"\ntraining failed. {error}")
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        sys.exit(f"\ntraining failed. {error}: start it with prefect server start, or unset PREFECT_API_URL")
    except KeyboardInterrupt:
        print("\ntraining was interrupted; the next run goes on with the stage that was running", file=sys.stderr)
        sys.exit(130)


def start_temporary_server() -> None:
    """Start the server that Prefect starts for a run where none is configured, but deaf to Ctrl-C.

    A terminal interrupts it together with the flow, which would then wait for minutes to tell it how the run ended.
    """
    if PREFECT_API_URL.value():
        return
    from prefect.server.api.server import SubprocessASGIServer  # slow to import, and needed only here

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        SubprocessASGIServer().start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


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
