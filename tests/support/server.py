"""`python -m serving` in a process of its own, as a user starts it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.params import ROOT

START_S, STOP_S = 60, 40  # that it may take, on a busy machine too


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path  # what it prints


def of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a server, of which nothing but `environment` is its own."""
    names = {name: value for name, value in os.environ.items() if name not in ("MODEL", "PORT", "REGISTRY", "TOKEN")}
    return {**names, "PYTHONPATH": str(ROOT), **environment}


@contextmanager
def running(
    folder: Path,
    *options: str,
    limits: Mapping[str, float] | None = None,
    stopped: bool = False,
    python: str | Path = sys.executable,
    **environment: str,
) -> Iterator[Running]:
    """Serve what lies in a folder, on a port of its own, and stop it by SIGTERM.

    Args:
        limits: other than the server's own; see tests/support/limited.py.
        stopped: the test itself sends it the signal.
        python: of another environment than this one.
    """
    log = folder / "serve.log"
    with log.open("wb") as file:
        module = ("serving",) if limits is None else ("tests.support.limited", json.dumps(limits))
        words = (python, "-m", *module, "--port", "0", *options)
        process = subprocess.Popen(words, cwd=folder, env=of(environment), stdout=file, stderr=file)
    try:
        yield Running(_url(process, log), process, log)
        if not stopped:
            assert process.poll() is None, f"the server ended by itself: {log.read_text()}"
            process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"^serve: (http://\S+), until", log.read_text(), re.MULTILINE):
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"the server does not start: {log.read_text()}")
