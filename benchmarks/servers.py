"""The servers that are driven: ours, and others as they come, each in an environment of its own in .cache/load-test."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tasks.harness.code import ROOT

SCRIPTS = Path(__file__).parent / "others"
CACHE = ROOT / ".cache/load-test"
PATIENCE_S = 60
ONNXRUNTIME = "onnxruntime==1.31.1"  # as in the lock


@dataclass(frozen=True)
class Server:
    """How a server is started and asked."""

    name: str
    requirements: tuple[str, ...]  # of its environment; none: that of this process
    command: tuple[str, ...]  # in the folder of its environment's programs, with {model} and {port}
    ready: str  # a path that answers 200 once it is up
    infer: str  # the path that takes an image
    json: bool  # takes the images as JSON instead of binary tensors


INFER = "/v2/models/classifier/infer"
OURS = Server(
    "ours",
    requirements=(),
    command=("python", "-m", "serving", "--model", "{model}", "--port", "{port}"),
    ready="/v2/health/ready",
    infer=INFER,
    json=False,
)
OTHERS = [
    Server(
        "kserve",
        requirements=("kserve==0.21.0", ONNXRUNTIME),
        command=("python", "kserve_server.py", "{model}", "{port}"),
        ready="/v2/health/ready",
        infer=INFER,
        json=False,
    ),
    Server(
        "LitServe",
        requirements=("litserve==0.2.19", ONNXRUNTIME),
        command=("python", "litserve_server.py", "{model}", "{port}"),
        ready="/health",
        infer="/predict",
        json=True,
    ),
    Server(
        "BentoML",
        requirements=("bentoml==1.4.40", ONNXRUNTIME),
        command=("bentoml", "serve", "bentoml_server:Classifier", "--port", "{port}"),
        ready="/readyz",
        infer="/infer",
        json=True,
    ),
]


@contextmanager
def serving(server: Server, model: Path) -> Iterator[tuple[psutil.Process, str]]:
    """Have a server serve a model, and give its process and its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [word.format(model=model, port=port) for word in server.command]
    command[0] = str(programs(server) / command[0])
    environment = {**os.environ, "MODEL": str(model), "BENTOML_DO_NOT_TRACK": "1", "BENTOML_HOME": str(CACHE / "bento")}
    folder = SCRIPTS if server.requirements else ROOT
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        url = f"http://127.0.0.1:{port}"
        whole = psutil.Process(process.pid)
        try:
            _wait(process, url + server.ready)
            yield whole, url
        finally:
            for one in [*whole.children(recursive=True), whole]:
                with suppress(psutil.NoSuchProcess):
                    one.terminate()


def cpu_seconds(process: psutil.Process) -> float:
    """Return the processor time of a server, of all its processes."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def programs(server: Server) -> Path:
    """Return the folder of the programs of a server's environment, which is made the first time."""
    if not server.requirements:
        return Path(sys.executable).parent
    folder = CACHE / "-".join(re.sub(r"\W+", "-", requirement) for requirement in server.requirements)
    if not (folder / "whole").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run((folder / "bin/python", "-m", "pip", "install", "--quiet", *server.requirements), check=True)
        (folder / "whole").touch()
    return folder / "bin"


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=PATIENCE_S):
            return
        time.sleep(0.1)
    sys.exit(f"load-test: {url} does not answer")
