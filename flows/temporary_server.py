"""The server that Prefect starts for a run where none is configured, out of the way of signals that are for the run."""

import subprocess
from functools import partial
from types import SimpleNamespace
from typing import Any

from prefect.server.api import server

from flows import leftover
from flows.server import make_home


class TemporaryServer(server.SubprocessASGIServer):
    """Prefect's own, and what Prefect takes for its own from then on: it keeps one instance."""

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        # In a process group of its own: a signal to the run's, by a terminal or a supervisor, would end it together
        # with the flow, which would then try for minutes to tell it how it ended. Prefect's method takes no such wish.
        server.__dict__["subprocess"] = SimpleNamespace(Popen=partial(subprocess.Popen, process_group=0))
        try:
            process = super()._run_uvicorn_command()
        finally:
            server.__dict__["subprocess"] = subprocess
        leftover.record(process, leftover.TEMPORARY)
        return process


def start() -> None:
    """Start it; call it with the project's lock, and after `leftover.end`.

    Raises:
        ServerError: see `make_home`.
    """
    make_home()
    TemporaryServer().start()
