"""What tells the runs of several datasets and checkouts apart in Prefect's UI: names, tags, keys of artifacts."""

import hashlib
import re
import secrets
from contextlib import suppress
from pathlib import Path

from prefect import get_client
from prefect.runtime import flow_run

from flows import overrides
from flows.promotion import history
from flows.runtime import form, night
from flows.runtime.clone import git
from tasks.harness.errors import ParamsError, StageError

TOKEN = "classifier-pipeline-checkout"  # in git's folder


def checkout() -> str:
    """Name this checkout as no other is named: several of them, of several machines, may be on one server.

    Of its folder's name those characters are replaced that Prefect allows in no name.
    """
    folder = night.home()
    digest = hashlib.sha256(f"{_token(folder)}{folder}".encode()).hexdigest()
    return f"{re.sub('[/%&<>]', '-', folder.name)}-{digest[:6]}"


def _token(folder: Path) -> str:
    """Return what tells this checkout from one at the same path of another machine; nothing outside git: no nights.

    It is made once, and lies where a clone does not take it along, and nobody clears up as they may .cache/. A host's
    name would not do: that of a container is another one whenever it starts.
    """
    try:
        path = Path(git(folder, "rev-parse", "--absolute-git-dir").rstrip("\n")) / TOKEN
        if not path.exists():
            with suppress(FileExistsError):  # another process has just made it
                history.create(path, secrets.token_hex(8).encode())
        return path.read_text(encoding="utf-8")
    except (StageError, OSError):
        return ""


def key(artifact: str) -> str:
    """Return the key of this checkout's `artifact`, for which Prefect allows small letters, digits and dashes alone."""
    return re.sub("[^a-z0-9]+", "-", f"{artifact} {checkout()}".lower())


def named(name: str | None, run: object) -> str:
    """Name a flow run as verdicts and the history do.

    Args:
        run: its id.
    """
    return f"run {name}, {str(run)[-12:]}"


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
