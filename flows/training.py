"""The training flow: from raw images to a verified ONNX model.

Reads:  params.yaml, dvc.yaml
Writes: whatever the stages write, and reports/run.json
Run:    python -m flows training, see flows/train.py
"""

from datetime import UTC, datetime

from prefect import flow, get_run_logger

from flows import overrides
from flows.report import artifacts, summary
from flows.runtime import dvc_files, inbox, labels, last_good
from flows.runtime.log import quieten
from tasks.dvc import StageFailed, StageRun
from tasks.params import whole
from tasks.stages import download, evaluate, export, quantize, train, transform


@flow(name="training", flow_run_name=labels.run_name)
def training(changes: list[str] | None = None) -> list[StageRun]:
    """Download, transform, train, evaluate and export, each only if DVC says that it has to run.

    Args:
        changes: to params.yaml, `key=value` each, made before the first stage.
    """
    started = datetime.now(UTC)
    return learn(prepare(changes), started)


def prepare(changes: list[str] | None = None) -> list[StageRun]:
    """Download and transform, within a flow; see `training`."""
    quieten()
    logger = get_run_logger()
    for path in dvc_files.remove_damaged():
        logger.warning("%s was cut off when DVC was killed; DVC writes it anew, and restores what it has run", path)
    for change in overrides.write(changes or []):
        logger.info("params.yaml: %s", change)
    params = whole.load()
    labels.tag()
    limit = params.flow.time_limit_s
    if links := inbox.links_to_folders(params.download):
        logger.info("DVC does not look behind links to folders, so download runs in any case: %s", ", ".join(links))

    patient = download.with_options(retries=params.flow.download_retries, retry_delay_seconds=params.flow.retry_delay_s)
    raw = patient(limit.download, force=bool(links))
    return [raw, transform(limit.transform, wait_for=[raw])]


def learn(prepared: list[StageRun], started: datetime) -> list[StageRun]:
    """Train, evaluate and export what `prepare` has prepared, within the same flow, which began at `started`.

    And quantize it, where params.yaml asks for that.
    """
    params = whole.load()
    limit = params.flow.time_limit_s
    trained = train(limit.train, wait_for=prepared[-1:])
    evaluated = evaluate(limit.evaluate, wait_for=[trained])
    runs = [*prepared, trained, evaluated]
    try:
        runs.append(export(limit.export, wait_for=[evaluated]))
        if params.quantize.to:
            runs.append(quantize(limit.quantize, wait_for=runs[-1:]))
    except StageFailed:
        artifacts.publish(runs)
        raise
    artifacts.publish(runs)
    summary.write_run(runs, started)
    last_good.keep()
    return runs


if __name__ == "__main__":
    from flows.train import main

    main()
