"""What tells the runs of several datasets and checkouts apart in Prefect's UI: names, tags, keys of artifacts."""

import hashlib
import re

from prefect import get_client
from prefect.runtime import flow_run

from flows import overrides
from flows.runtime import form, night
from tasks.harness.errors import ParamsError, StageError


def checkout() -> str:
    """Name this checkout as no other on the machine is named: several of them may be on one server.

    Of its folder's name those characters are replaced that Prefect allows in no name.
    """
    folder = night.home()
    return f"{re.sub('[/%&<>]', '-', folder.name)}-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}"


def key(artifact: str) -> str:
    """Return the key of this checkout's `artifact`, for which Prefect allows small letters, digits and dashes alone."""
    return re.sub("[^a-z0-9]+", "-", f"{artifact} {checkout()}".lower())


def run_name() -> str:
    """Name a flow run that is about to begin after the data that it is asked for, and the checkout's folder."""
    return " in ".join((*_dataset(), night.home().name))


def tag() -> None:
    """Tag the flow run that is at work with the dataset that it is asked for, and its checkout."""
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags=sorted({*flow_run.tags, *_dataset(), checkout()}))


def _dataset() -> list[str]:
    """Return the dataset that the flow run is asked for; none where that is refused, for which the flow fails."""
    asked = flow_run.parameters
    try:
        if "recipe" in asked:  # the form of flows/retraining.py
            return [form.dataset(asked["recipe"])]
        return [overrides.check(list(asked.get("changes") or [])).download.dataset]
    except (ParamsError, StageError):
        return []
