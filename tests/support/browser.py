"""A page in Chromium: served from a folder, on loopback, until a script in it has sent back what it saw."""

import functools
import json
import queue
import shutil
import subprocess
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.loopback import answering

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--no-first-run", "--disable-background-networking", "--enable-logging=stderr")
WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")  # computed by the CPU: no GPU is needed


class Server(ThreadingHTTPServer):
    """Serves a folder as `python -m http.server` does, and puts what is posted, JSON, into `posted`."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        self.posted = queue.Queue[Any]()


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.posted.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def visit(folder: Path, page: str, scratch: Path, *flags: str, timeout_s: float = 120) -> Any:
    """Open a page of `folder` in Chromium and return what it posts.

    Args:
        scratch: a folder for Chromium's profile and log.
    """
    log = scratch / "chromium.log"
    with answering(Server(folder)) as server, log.open("w") as file:
        words = (str(CHROMIUM), *FLAGS, *flags, f"--user-data-dir={scratch / 'profile'}")
        process = subprocess.Popen((*words, f"http://127.0.0.1:{server.server_port}/{page}"), stderr=file)
        try:
            return server.posted.get(timeout=timeout_s)
        except queue.Empty:
            said = [line for line in log.read_text(errors="replace").splitlines() if "CONSOLE" in line]
            raise AssertionError("\n".join((f"{page} sent nothing within {timeout_s} s", *said))) from None
        finally:
            process.terminate()
            process.wait(30)
