"""A schedule in a process of its own, as a user starts it, and its Prefect server, as its users speak to it."""

import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import requests

from flows.runtime import labels

WAITS_S = 300  # on a machine with much to do a night takes minutes
RETRAINING = ("python", "-m", "flows", "retraining")
CRON, ZONE = "30 2 * * *", "Europe/Berlin"  # a moment that is twice in one night of the year, and never in another
# Prefect's worker asks every ten seconds whether a run is due.
OFTEN = {"PREFECT_WORKER_QUERY_SECONDS": "0.5"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def scheduled(
    project: Path, environment: dict[str, str], home: Path, port: int, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """Start a schedule that comes due at night, on a server of its own."""
    own = {"PREFECT_HOME": str(home), "PREFECT_SERVER_API_PORT": str(port), "CRON": CRON, "TZ": ZONE}
    process = subprocess.Popen(
        RETRAINING,
        cwd=project,
        env=environment | own | OFTEN | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate()


def wait_for(process: subprocess.Popen[str], pattern: str) -> list[str]:
    """Read what it prints until a line matches, and return the lines."""
    assert process.stdout is not None
    printed = []
    too_late = threading.Timer(WAITS_S, process.terminate)
    too_late.start()
    try:
        for line in process.stdout:
            printed.append(line)
            if re.search(pattern, line):
                return printed
    finally:
        too_late.cancel()
    pytest.fail(f"it ended without {pattern!r}:\n{''.join(printed)}")


def wait_until(true: Callable[[], bool], within_s: float = WAITS_S) -> None:
    """Ask again and again until it is true."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def left(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run. Where nobody reaps orphans one that has ended is a zombie."""
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


class Prefect:
    """A server, as its users speak to it."""

    def __init__(self, port: int) -> None:
        self.api = f"http://127.0.0.1:{port}/api"

    def ask(self, path: str, **body: Any) -> Any:
        """Ask, and ask again, as Prefect's own client does, where SQLite has more to write than it can at a time."""
        answer = requests.post(f"{self.api}/{path}", json=body, timeout=WAITS_S)
        deadline = time.monotonic() + WAITS_S
        while answer.status_code == requests.codes.service_unavailable and time.monotonic() < deadline:
            time.sleep(0.1)
            answer = requests.post(f"{self.api}/{path}", json=body, timeout=WAITS_S)
        return answer

    def deployment(self, kind: str) -> Any:
        wanted = {"name": {"any_": [f"{kind} in {labels.checkout()}"]}}
        (found,) = self.ask("deployments/filter", deployments=wanted).json()
        return found

    def start(self, kind: str = "on demand", **parameters: Any) -> Any:
        """Press the button of a form."""
        deployment = self.deployment(kind)
        filled = {**deployment["parameters"], **parameters}
        return self.ask(f"deployments/{deployment['id']}/create_flow_run", parameters=filled)

    def say_that_images_arrived(self, times: int = 1) -> None:
        event = {"event": "images.arrived", "resource": {"prefect.resource.id": labels.checkout()}}
        occurred = datetime.now(UTC).isoformat()
        sent = [{**event, "id": str(uuid4()), "occurred": occurred} for _ in range(times)]
        assert requests.post(f"{self.api}/events", json=sent, timeout=WAITS_S).status_code == 204

    def runs(self) -> list[Any]:
        """List the runs that have begun, or never will."""
        begun = {"state": {"type": {"not_any_": ["SCHEDULED"]}}}
        return list(self.ask("flow_runs/filter", flow_runs=begun, sort="START_TIME_ASC").json())

    def states(self) -> list[str]:
        """Return how the runs are called in the UI, in their order."""
        return [run["state_name"] for run in self.runs() if run["deployment_id"] == self.deployment("on demand")["id"]]
