"""The server that Prefect starts for a run where none is configured: deaf to Ctrl-C, and never left behind."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
from prefect.server.api.server import SubprocessASGIServer

from flows.server import make_home

RECORD = Path(".cache/temporary-server.json")


class TemporaryServer(SubprocessASGIServer):
    """Prefect's own, and what Prefect takes for its own from then on: it keeps one instance."""

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        # A terminal interrupts it together with the flow, which would then wait for minutes to tell it how it ended.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = super()._run_uvicorn_command()
            RECORD.parent.mkdir(exist_ok=True)
            RECORD.write_text(json.dumps({"pid": process.pid, "started": psutil.Process(process.pid).create_time()}))
            return process
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def start() -> None:
    """Start it, after ending the one that a run which was killed has left behind; call it with the project's lock."""
    make_home()
    end_leftover()
    TemporaryServer().start()


def end_leftover() -> None:
    """End the server that was started last, if it still runs: the same pid and start time, not one that came after."""
    try:
        record = json.loads(RECORD.read_text())
        server = psutil.Process(record["pid"])
        if server.create_time() != record["started"]:
            return
        server.terminate()
        _, running = psutil.wait_procs([server], timeout=5)
        for process in running:
            process.kill()
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return
