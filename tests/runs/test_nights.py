"""Nights that are stopped before each of their steps: the next one completes them."""

import signal

import psutil
import pytest

from flows.promotion import history, judgement
from flows.promotion.judgement import Judgement
from serving.champion import registry
from tasks.harness.records import read_record
from tests.support.nights import left, wait_for, wait_until
from tests.support.pausing.sitecustomize import PAUSED
from tests.support.steps import PATIENCE_S, STEPS, Nights, in_service, pause_before, plays, wait_until_paused

OF_RUNS = (signal.SIGKILL, signal.SIGTERM)


def verdicts() -> list[str]:
    """Return what the verdicts say of the model, after how the night ended."""
    paths = (registry() / judgement.FOLDER).glob("*.json")
    return [read_record(path, Judgement).headline.partition(": ")[2] for path in paths]


@pytest.mark.parametrize("play", plays(len(OF_RUNS)))
def test_a_night_goes_on_after_one_that_was_stopped_before_any_step(
    play: int, nights_model: str, nights: Nights
) -> None:
    (scheduled_nights, prefect), found = nights, []
    with scheduled_nights() as schedule:
        for index, (name, step) in enumerate(STEPS.items()):
            pause_before(step)
            assert prefect.start().ok
            wait_until_paused(schedule)
            run = psutil.Process(int(PAUSED.read_text()))
            processes = [run, *run.children(recursive=True)]
            run.send_signal(OF_RUNS[(index + play) % len(OF_RUNS)])
            psutil.wait_procs(processes, PATIENCE_S)
            assert not left(processes), name
            wait_until(lambda: {*prefect.states()} == {"Crashed"}, PATIENCE_S)
            found.append(in_service(registry(), nights_model))
        # Of all but the one that put it there. Prefect's worker has them written beside the next run.
        wait_until(lambda: verdicts().count("no model was put into service") == len(STEPS) - 1, PATIENCE_S)
        pause_before(None)
        assert prefect.start().ok
        wait_for(schedule, r"Finished in state (Promoted|Nothing new)\(")
        assert set(prefect.states()[:-1]) == {"Crashed"}
    assert found == sorted(found)
    assert in_service(registry(), nights_model)
    assert [entry.number for entry in history.read(registry())] == [1]
