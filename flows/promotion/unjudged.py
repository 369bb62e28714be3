"""Nights that came to no model, or whose model did not come into service for another reason than its blessings.

They have a verdict file as all others: a person who asks why in the morning is not shown that of a night before.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefect import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from flows.promotion import history, judgement
from flows.promotion.judgement import NIGHT, STATE, Judgement
from flows.runtime import labels, night
from serving.champion import registry
from tasks.gates.verdict import Verdict
from tasks.harness.errors import ParamsError, StageError


def write(root: Path, state: str, why: str, by: str, remarks: Sequence[str] = ()) -> None:
    """Write the verdict file of a night, unless it has one, has put a model into service, or there is no room for it.

    Args:
        state: as which it ended.
        why: in as many lines as it takes.
        by: as `Judgement` has it.
    """
    champion, dataset, limits = None, "unknown", {}
    with suppress(StageError, OSError):
        entries = history.read(root)
        champion = entries[-1].model if entries else None
        if any(entry.by == by for entry in entries):
            return
    if (last := judgement.last_by(root, by)) and last[0].model is None:
        return
    with suppress(StageError, ParamsError):
        params = night.committed()
        dataset, limits = params.download.dataset, params.retraining.model_dump()
    found = Judgement(
        time=history.now().isoformat(),
        model=None,
        champion=champion,
        by=by,
        dataset=dataset,
        test_images=0,
        looks=0,
        limits=limits,
        test_set="",
        blessings=[Verdict(NIGHT, "failed", why.splitlines(), {STATE: state})],
        remarks=list(remarks),
        arrivals=None,
    )
    with suppress(OSError):
        judgement.write(root, found)


def crashed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 (as Prefect calls it)
    """Write the verdict file of a run that was killed: Prefect calls this where its worker is."""
    with get_client(sync_client=True) as client:
        name = client.read_flow_run(flow_run.id).name  # the worker has the one from before the run gave itself its own
    write(registry(), "Crashed", str(state.message), labels.named(name, flow_run.id))
