"""What stands on a Prefect server for this checkout: its work pool, the deployments of prefect.yaml, and their runs."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)
from prefect.states import Cancelled, Cancelling, Completed, Crashed
from prefect.workers.process import ProcessWorker

from flows.promotion import history, unjudged
from flows.runtime import form, labels, night
from flows.runtime.server import HANGS_AFTER_S, ServerError
from serving.champion import registry
from tasks.harness.errors import ParamsError, StageError

ON_DEMAND = "on demand"  # the deployment whose form shows what is committed
DEPLOY = (sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all")
BY_ITSELF = "AUTOMATION"  # as the server calls what started a run
AT_WORK = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
ASKED_EVERY_S = 0.2
BY_HAND = "The schedule was ended."


def worker() -> tuple[str, ...]:
    """Return the command by which this process, a schedule, has the runs of this checkout started."""
    return (sys.executable, "-m", "flows.runtime.worker", str(os.getpid()), labels.checkout())


def put(url: str, cron: str, timezone: str) -> None:
    """Put the work pool and the deployments on the server at `url`, in the place of earlier ones.

    No worker of this checkout may be at work: runs that an earlier one has left are ended.

    Raises:
        ServerError: Prefect refuses them; it says why.
    """
    pool = WorkPoolCreate(
        name=labels.checkout(),
        description=f"The nights of {night.home()}",
        type=ProcessWorker.type,
        base_job_template=ProcessWorker.get_default_base_job_template(),
    )
    names = {"CHECKOUT": pool.name, "PROJECT": str(night.home()), "CRON": cron, "TZ": timezone, "PREFECT_API_URL": url}
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        client.create_work_pool(pool, overwrite=True)
        answer = subprocess.run(
            DEPLOY, env={**os.environ, **names}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if answer.returncode:
            raise ServerError(f"prefect.yaml cannot be deployed:\n{answer.stdout}{answer.stderr}".rstrip())
        settle(client)


class Form:
    """The form of the deployment *on demand* on the server at `url`: it shows what is committed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.committed = ""  # which params.yaml that is; one that is refused is not shown, and said once

    def follow(self) -> None:
        """Show what has been committed since; where git or the server has no answer, they are asked the next time."""
        with suppress(StageError, httpx.HTTPError, ObjectNotFound):
            if (committed := night.committed_as()) == self.committed:
                return
            try:
                values = DeploymentUpdate(parameters=form.shown())
            except ParamsError as error:
                print(f"the form still shows what was committed before: {error}", flush=True)
            else:
                with _asking(self.url) as client:
                    found = client.read_deployment_by_name(f"retraining/{ON_DEMAND} in {labels.checkout()}")
                    client.update_deployment(found.id, values)
            self.committed = committed


def settle(client: SyncPrefectClient, by_hand: bool = False) -> None:
    """End on the server the runs that no process is behind, as their worker has ended: they would run for ever.

    Args:
        by_hand: a person has ended it, and is not to be told that they crashed.
    """
    message = BY_HAND if by_hand else "The worker that ran it had ended before it."
    for run in at_work(client):
        ended = Cancelled if by_hand or run.state_type == StateType.CANCELLING else Crashed
        send_states(client, run.id)
        client.set_flow_run_state(run.id, ended(message=message), force=True)
        if ended is Crashed:
            unjudged.write(registry(), "Crashed", message, labels.named(run.name, run.id))


def at_work(client: SyncPrefectClient) -> list[FlowRun]:
    """Return the runs of this checkout that the server takes to be at work."""
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(AT_WORK)))),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[labels.checkout()])),
    )


def cancel(url: str, within_s: float) -> bool:
    """Have the worker end the runs of this checkout, as if somebody had pressed the button in the UI, and wait for it.

    Returns:
        Whether the server at `url` answers.
    """
    deadline = time.monotonic() + within_s
    try:
        with _asking(url) as client:
            while time.monotonic() < deadline and _cancelling(client):
                time.sleep(ASKED_EVERY_S)
    except httpx.TransportError:
        return False
    return True


def _cancelling(client: SyncPrefectClient) -> bool:
    with suppress(httpx.HTTPStatusError):  # the server has much to do
        runs = at_work(client)
        for run in runs:
            if run.state_type != StateType.CANCELLING:
                client.set_flow_run_state(run.id, Cancelling(message=BY_HAND))
        return bool(runs)
    return True


def settle_at(url: str, by_hand: bool) -> None:
    """Do as `settle` on the server at `url`, if it answers: else the next schedule does."""
    with suppress(httpx.HTTPError, ObjectNotFound), _asking(url) as client:
        settle(client, by_hand)


@contextmanager
def _asking(url: str) -> Iterator[SyncPrefectClient]:
    """Ask the server at `url`, and do not try for minutes where it does not answer."""
    once = {PREFECT_API_URL: url, PREFECT_API_REQUEST_TIMEOUT: HANGS_AFTER_S, PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(once), get_client(sync_client=True) as client:
        yield client


def send_states(client: SyncPrefectClient, run: UUID) -> None:
    """Send the server the events of the states that a run was in, so that what it tells of the next one is in time.

    An event waits for that of the state before, if that was within five minutes: a quarter of an hour, if none comes.
    The server sends none for a run that it makes because of a schedule, and one that was started anew has had none yet.
    """
    for state in client.read_flow_run_states(run):
        resource = {"prefect.resource.id": f"prefect.flow-run.{run}"}
        emit_event(f"prefect.flow-run.{state.name}", resource, occurred=state.timestamp, id=state.id)


def begin() -> None:
    """Tell the server what it may not know of this run, which is about to begin: see `send_states`."""
    with get_client(sync_client=True) as client:
        send_states(client, flow_run.id)


def overtaken() -> str | None:
    """Tell whether a newer run than this one is due, too, of those that nobody asked for; end all that are but it.

    So many nights that were missed, or came due while another was at work, are one.

    Returns:
        What to say of this run; None: it is the newest.
    """
    with get_client(sync_client=True) as client:
        this = client.read_flow_run(flow_run.id)
        if this.deployment_id is None or not _by_itself(this):
            return None
        due = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
                expected_start_time=FlowRunFilterExpectedStartTime.model_validate({"before_": history.now()}),
            ),
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[this.deployment_id])),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        )
        newer = [run for run in due if _by_itself(run)]
        if not newer:
            return None
        said = f"Superseded by the run that was due at {newer[-1].expected_start_time:%Y-%m-%d %H:%M} UTC"
        for run in newer[:-1]:
            client.set_flow_run_state(run.id, superseded(said), force=True)
        return said


def superseded(said: str) -> State[None]:
    return Completed(name="Superseded", message=said)


def _by_itself(run: FlowRun) -> bool:
    return run.auto_scheduled or (run.created_by is not None and run.created_by.type == BY_ITSELF)
