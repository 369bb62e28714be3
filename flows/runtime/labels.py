"""What tells the runs of several datasets and checkouts apart in Prefect's UI: names, tags, keys of artifacts."""

import hashlib
import re
from pathlib import Path

from prefect import get_client
from prefect.runtime import flow_run

from flows import overrides
from tasks.harness.errors import ParamsError


def checkout() -> str:
    """Name this checkout as no other on the machine is named: several of them may be on one server."""
    folder = Path.cwd()
    return f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}"


def key(artifact: str) -> str:
    """Return the key of this checkout's `artifact`, for which Prefect allows small letters, digits and dashes alone."""
    return re.sub("[^a-z0-9]+", "-", f"{artifact} {checkout()}".lower())


def run_name() -> str:
    """Name a flow run that is about to begin after the data that it is asked for, and the checkout's folder."""
    changes = list(flow_run.parameters.get("changes") or [])
    if dataset := flow_run.parameters.get("dataset"):  # the form of flows/retraining.py
        changes.append(f"download.dataset={dataset}")
    folder = Path.cwd().name
    try:
        return f"{overrides.check(changes).download.dataset} in {folder}"
    except ParamsError:  # for which the flow is about to fail
        return folder


def tag(dataset: str) -> None:
    """Tag the flow run that is at work with its dataset and its checkout."""
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags=sorted({*flow_run.tags, dataset, checkout()}))
