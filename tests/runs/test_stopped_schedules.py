"""Nights whose worker or server ends before each of their steps: nothing works on, and the next one completes them."""

import json
import os
import signal

import psutil
import pytest

from flows.promotion import history
from flows.runtime import server
from flows.runtime.schedule import WORKER
from serving.champion import registry
from tests.support.nights import left, wait_for
from tests.support.pausing.sitecustomize import RELEASED
from tests.support.steps import PATIENCE_S, STEPS, Nights, in_service, pause_before, plays, wait_until_paused

# What is stopped, and how: another end before each step, in each play.
ENDS = (
    (WORKER, signal.SIGKILL),
    (server.SCHEDULE, signal.SIGTERM),
    (WORKER, signal.SIGTERM),
    (server.SCHEDULE, signal.SIGKILL),
)


@pytest.mark.timeout(3000)  # sixteen schedules, one after the other
@pytest.mark.parametrize("play", plays(len(ENDS)))
def test_a_night_goes_on_whose_worker_or_server_was_stopped_before_any_step(
    play: int, nights_model: str, nights: Nights
) -> None:
    (scheduled_nights, prefect), found = nights, []
    for index, (name, step) in enumerate(STEPS.items()):
        record, number = ENDS[(index + play) % len(ENDS)]
        pause_before(step)
        with scheduled_nights() as schedule:
            assert prefect.start().ok
            wait_until_paused(schedule)
            processes = psutil.Process(schedule.pid).children(recursive=True)
            os.kill(json.loads(record.read_text())["pid"], number)
            if name == "the import":  # until it is over nothing ties the run to its worker
                RELEASED.touch()
            printed, _ = schedule.communicate(timeout=PATIENCE_S)
        said = [line for line in printed.splitlines() if line.startswith("schedule: ")]
        assert (schedule.returncode, len(said)) == (1, 1), f"{name}, {record}, {number}: {printed}"
        assert not left(processes), name
        found.append(in_service(registry(), nights_model))
    assert found == sorted(found)
    pause_before(None)
    with scheduled_nights() as schedule:
        assert {*prefect.states()} == {"Crashed"}
        assert prefect.start().ok
        wait_for(schedule, r"Finished in state (Promoted|Nothing new)\(")
    assert in_service(registry(), nights_model)
    assert [entry.number for entry in history.read(registry())] == [1]
