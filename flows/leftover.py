"""Servers that were started here: a run that is killed leaves them behind, and the next one ends them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import psutil

TEMPORARY = Path(".cache/temporary-server.json")  # of a flow
SCHEDULE = Path(".cache/schedule-server.json")
ENDS_WITHIN_S = 10


def record(process: "subprocess.Popen[Any]", path: Path) -> None:
    """Note in `path` which process it is: its pid and its start, because pids come again."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"pid": process.pid, "started": psutil.Process(process.pid).create_time()}))


def find(path: Path) -> psutil.Process | None:
    """Return the process that `path` notes, if it still runs."""
    try:
        noted = json.loads(path.read_text())
        process = psutil.Process(noted["pid"])
        return process if process.create_time() == noted["started"] else None
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None


def end(path: Path) -> None:
    """End the process that `path` notes, if it still runs."""
    if process := find(path):
        process.terminate()
        _, running = psutil.wait_procs([process], timeout=ENDS_WITHIN_S)
        for stubborn in running:
            stubborn.kill()
            stubborn.wait()
