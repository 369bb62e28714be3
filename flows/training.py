"""The training flow: from raw images to a verified ONNX model.

Reads:  params.yaml, dvc.yaml
Writes: whatever the stages write, and reports/run.json
Run:    python -m flows.training [-S [params.yaml:]key=value]... [--wait SECONDS]
"""

import argparse
import logging
import signal
import sys
from datetime import UTC, datetime
from typing import NoReturn

from prefect import flow, get_run_logger
from prefect.settings import PREFECT_API_URL

from flows import dvc_files, overrides, project_lock, report
from flows.project_lock import ProjectLocked
from tasks import params, stages
from tasks.params import ParamsError
from tasks.stage import StageError
from tasks.stages import StageFailed, StageRun, download, evaluate, export, log_path, train, transform


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
        report.publish(runs)
        raise
    report.publish(runs)
    report.write_run(runs, started)
    return runs


class Terminated(BaseException):
    """SIGTERM has arrived."""


def run(changes: list[str], wait_s: float = 0) -> None:
    """Run the flow and print what came of it; exit with 1 and the reason if it failed.

    Args:
        changes: see `training`.
        wait_s: how long to wait for another run in this project.
    """
    # That it starts and stops a temporary server.
    logging.getLogger("prefect").addFilter(lambda record: record.levelno > logging.INFO)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with project_lock.hold(wait_s):
            overrides.check(changes)
            if not PREFECT_API_URL.value():
                from flows import temporary_server  # slow to import, and needed only here

                temporary_server.start()
            runs = training(changes)
            print(f"\n{report.summary(runs)}")
    except StageFailed as error:
        sys.exit(f"\ntraining failed. {error.reason}\n{_way_back(error.stage)}")
    except (ParamsError, StageError, ProjectLocked) as error:
        sys.exit(f"\ntraining failed. {error}")
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        sys.exit(f"\ntraining failed. {error}: start it with prefect server start, or unset PREFECT_API_URL")
    except (KeyboardInterrupt, Terminated) as error:
        number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        for other in (signal.SIGINT, signal.SIGTERM):
            signal.signal(other, signal.SIG_IGN)  # the temporary server is about to be ended
        where = f"in the stage {stages.asked_for}" if stages.asked_for else "before the first stage"
        print(f"\ntraining was stopped by {number.name} {where}; the same command goes on there", file=sys.stderr)
        sys.exit(128 + number)


def _terminate(*_: object) -> NoReturn:
    raise Terminated


def _way_back(stage: str) -> str:
    return f"log: {log_path(stage)}\nback to the last commit: git restore params.yaml dvc.lock reports && dvc checkout"


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
    run(arguments.changes, arguments.wait)


if __name__ == "__main__":
    main()
